interface Thinned {
  width: number
  edits: number
  /** The first sample it holds, and the first of the column that is not complete. */
  start: number
  next: number
  t: number[]
  v: number[]
  /** How many of its points belong to complete columns. */
  closed: number
}

/**
 * One channel's points in time order: what the server sent for past windows (min, max, first, last per column)
 * with live samples appended. A value that is absent is NaN; it breaks the line and never becomes a number.
 */
export class Series {
  private t = new Float64Array(1024)
  private v = new Float64Array(1024)
  private n = 0
  /** Counts changes other than an append: what was thinned before one no longer holds. */
  private edits = 0
  private thin: Thinned | null = null

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
    this.edits++
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
    const width = Math.max(1e-6, (to - from) / Math.max(1, columns))
    const out = { t: [] as number[], v: [] as number[] }
    this.decimate(start, end, width, out)
    return out
  }

  /**
   * The same from the column of the neighbour on, for a window that moves with the clock: columns of `width` lie on one grid for all windows, so those that
   * are complete are thinned once and only the newest is thinned again.
   */
  moving(from: number, to: number, width: number): { t: number[]; v: number[] } {
    const before = Math.max(0, this.lowerBound(from) - 1)
    const start = before < this.n ? this.lowerBound(Math.floor(this.time(before) / width) * width) : before
    const end = Math.min(this.n, this.indexAt(to) + 2)
    let thin = this.thin
    const same = thin && thin.width === width && thin.edits === this.edits && thin.start <= start && thin.next <= end
    if (!thin || !same || start - thin.start > (end - start) / 2) {
      thin = this.thin = { width, edits: this.edits, start, next: start, t: [], v: [], closed: 0 }
    }
    thin.t.length = thin.v.length = thin.closed
    const last = this.decimate(thin.next, end, width, thin)
    thin.next = last.index
    thin.closed = last.length
    const first = start < end ? this.time(start) : Infinity
    let skip = 0
    while (skip < thin.t.length && (thin.t[skip] as number) < first) skip++
    return { t: thin.t.slice(skip), v: thin.v.slice(skip) }
  }

  /** Appends the thinned points of [start, end) to `out`; returns where the last column begins, here and in `out`. */
  private decimate(start: number, end: number, width: number, out: { t: number[]; v: number[] }): { index: number; length: number } {
    const { t, v } = this
    let last = { index: start, length: out.t.length }
    let i = start
    while (i < end) {
      const column = Math.floor((t[i] as number) / width)
      const first = i
      last = { index: first, length: out.t.length }
      let min = i
      let max = i
      let absent = -1
      for (; i < end && Math.floor((t[i] as number) / width) === column; i++) {
        const value = v[i] as number
        if (Number.isNaN(value)) absent = i
        else {
          if (!((v[min] as number) <= value)) min = i
          if (!((v[max] as number) >= value)) max = i
        }
      }
      let kept = -1
      const final = i - 1
      const keep = (index: number) => {
        if (index <= kept) return
        kept = index
        out.t.push(t[index] as number)
        out.v.push(v[index] as number)
      }
      keep(first)
      // The three in between in the order of time.
      const [a, b] = min < max ? [min, max] : [max, min]
      if (absent >= 0 && absent < a) keep(absent)
      keep(a)
      if (absent >= 0 && absent > a && absent < b) keep(absent)
      keep(b)
      if (absent > b) keep(absent)
      keep(final)
    }
    return last
  }

  private insert(time: number, value: number): void {
    const index = this.lowerBound(time)
    if (index < this.n && this.time(index) === time) return
    this.edits++
    this.reserve(this.n + 1)
    this.t.copyWithin(index + 1, index, this.n)
    this.v.copyWithin(index + 1, index, this.n)
    this.t[index] = time
    this.v[index] = value
    this.n++
  }

  /** Thins the older half to a column per 32 points: the newest half keeps every sample, and spikes survive. */
  private compact(): void {
    this.edits++
    const half = this.n >>> 1
    const from = this.time(0)
    const width = (this.time(half) - from) / Math.max(1, half / 32)
    const old = { t: [] as number[], v: [] as number[] }
    this.decimate(0, half, Math.max(width, 1e-6), old)
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
