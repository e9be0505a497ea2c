/**
 * One channel's points in time order: what the server sent for past windows (min, max, first, last per column)
 * with live samples appended. A value that is absent is NaN; it breaks the line and never becomes a number.
 */
export class Series {
  private t = new Float64Array(1024)
  private v = new Float64Array(1024)
  private n = 0

  constructor(private readonly capacity = 60_000) {}

  get length(): number {
    return this.n
  }

  time(index: number): number {
    return this.t[index] as number
  }

  value(index: number): number {
    return this.v[index] as number
  }

  get lastTime(): number | null {
    return this.n > 0 ? this.time(this.n - 1) : null
  }

  get firstTime(): number | null {
    return this.n > 0 ? this.time(0) : null
  }

  /** The first index whose time is ≥ `at`. */
  lowerBound(at: number): number {
    let low = 0
    let high = this.n
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.time(middle) < at) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The index of the last point at or before `at`, or −1. */
  indexAt(at: number): number {
    const index = this.lowerBound(at)
    return index < this.n && this.time(index) === at ? index : index - 1
  }

  /** Adds live samples. In order is the fast path; late ones fill in where they belong, a repeated time is ignored. */
  append(times: readonly number[], values: readonly (number | null)[]): void {
    const inOrder = times.length > 0 && (this.n === 0 || (times[0] as number) > this.time(this.n - 1)) && ascending(times)
    if (inOrder) {
      this.reserve(this.n + times.length)
      for (let i = 0; i < times.length; i++) {
        this.t[this.n] = times[i] as number
        this.v[this.n] = values[i] ?? NaN
        this.n++
      }
    } else {
      for (let i = 0; i < times.length; i++) this.insert(times[i] as number, values[i] ?? NaN)
    }
    if (this.n > this.capacity) this.compact()
  }

  /** Puts a window from the server in place of every point in [from, to]. */
  replace(from: number, to: number, times: readonly number[], values: readonly (number | null)[]): void {
    const start = this.lowerBound(from)
    const end = Math.max(start, this.indexAt(to) + 1)
    const tail = this.n - end
    const size = start + times.length + tail
    this.reserve(size)
    this.t.copyWithin(start + times.length, end, this.n)
    this.v.copyWithin(start + times.length, end, this.n)
    for (let i = 0; i < times.length; i++) {
      this.t[start + i] = times[i] as number
      this.v[start + i] = values[i] ?? NaN
    }
    this.n = size
    if (this.n > this.capacity) this.compact()
  }

  /** Smallest and largest value in [from, to]; null when there is none. */
  range(from: number, to: number): [number, number] | null {
    let low = Infinity
    let high = -Infinity
    for (let i = this.lowerBound(from); i < this.n && this.time(i) <= to; i++) {
      const value = this.value(i)
      if (value < low) low = value
      if (value > high) high = value
    }
    return low <= high ? [low, high] : null
  }

  /**
   * The points to draw for [from, to] on `columns` pixel columns: at most first, min, max and last of each column,
   * and one neighbour outside on each side so that the line reaches the edges. Absent values are kept as breaks.
   */
  points(from: number, to: number, columns: number): { t: number[]; v: number[] } {
    const start = Math.max(0, this.lowerBound(from) - 1)
    const end = Math.min(this.n, this.indexAt(to) + 2)
    return this.decimate(start, end, from, Math.max(1e-6, (to - from) / Math.max(1, columns)))
  }

  private decimate(start: number, end: number, origin: number, width: number): { t: number[]; v: number[] } {
    const t: number[] = []
    const v: number[] = []
    const keep = (index: number) => {
      t.push(this.time(index))
      v.push(this.value(index))
    }
    let i = start
    while (i < end) {
      const column = Math.floor((this.time(i) - origin) / width)
      const first = i
      let min = i
      let max = i
      let absent = -1
      for (; i < end && Math.floor((this.time(i) - origin) / width) === column; i++) {
        const value = this.value(i)
        if (Number.isNaN(value)) absent = i
        if (!(this.value(min) <= value)) min = Number.isNaN(value) ? min : i
        if (!(this.value(max) >= value)) max = Number.isNaN(value) ? max : i
      }
      const chosen = [...new Set([first, min, max, absent < 0 ? first : absent, i - 1])].sort((a, b) => a - b)
      for (const index of chosen) keep(index)
    }
    return { t, v }
  }

  private insert(time: number, value: number): void {
    const index = this.lowerBound(time)
    if (index < this.n && this.time(index) === time) return
    this.reserve(this.n + 1)
    this.t.copyWithin(index + 1, index, this.n)
    this.v.copyWithin(index + 1, index, this.n)
    this.t[index] = time
    this.v[index] = value
    this.n++
  }

  /** Thins the older half to a column per 32 points: the newest half keeps every sample, and spikes survive. */
  private compact(): void {
    const half = this.n >>> 1
    const from = this.time(0)
    const width = (this.time(half) - from) / Math.max(1, half / 32)
    const old = this.decimate(0, half, from, Math.max(width, 1e-6))
    const kept = this.n - half
    this.t.copyWithin(old.t.length, half, this.n)
    this.v.copyWithin(old.v.length, half, this.n)
    this.t.set(old.t)
    this.v.set(old.v)
    this.n = old.t.length + kept
  }

  private reserve(size: number): void {
    if (size <= this.t.length) return
    const length = Math.max(size, this.t.length * 2)
    const t = new Float64Array(length)
    const v = new Float64Array(length)
    t.set(this.t.subarray(0, this.n))
    v.set(this.v.subarray(0, this.n))
    this.t = t
    this.v = v
  }
}

function ascending(times: readonly number[]): boolean {
  for (let i = 1; i < times.length; i++) if ((times[i] as number) <= (times[i - 1] as number)) return false
  return true
}
