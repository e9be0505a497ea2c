import { describe, expect, it } from 'vitest'
import { Series } from './series'

function ramp(n: number, step = 100): { t: number[]; v: number[] } {
  return { t: Array.from({ length: n }, (_, k) => k * step), v: Array.from({ length: n }, (_, k) => Math.sin(k / 50)) }
}

/** A small repeatable generator, so that a failure can be seen again. */
function random(seed: number): () => number {
  let state = seed
  return () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648
}

function all(series: Series): [number, number][] {
  return Array.from({ length: series.length }, (_, k) => [series.time(k), series.value(k)])
}

describe('Series', () => {
  it('holds the same points whatever order they arrive in, each once', () => {
    const { t, v } = ramp(500)
    const next = random(7)
    const order = t.map((_, k) => k).sort(() => next() - 0.5)
    const shuffled = new Series()
    for (const k of order) shuffled.append([t[k] as number], [v[k] as number])
    shuffled.append(t, v)
    const straight = new Series()
    straight.append(t, v)
    expect(all(shuffled)).toEqual(all(straight))
  })

  it('finds the last point at or before a time', () => {
    const series = new Series()
    series.append([10, 20, 30], [1, 2, 3])
    expect([5, 10, 15, 30, 99].map((at) => series.indexAt(at))).toEqual([-1, 0, 0, 2, 2])
  })

  it('replaces exactly the window it is given', () => {
    const series = new Series()
    series.append([0, 10, 20, 30, 40], [0, 1, 2, 3, 4])
    series.replace(10, 30, [12, 28], [7, 8])
    expect(all(series)).toEqual([[0, 0], [12, 7], [28, 8], [40, 4]])
    series.replace(-5, 100, [], [])
    expect(series.length).toBe(0)
  })

  it('never hides a spike of one sample, at any zoom', () => {
    const { t, v } = ramp(10_000)
    v[4321] = 99
    const series = new Series()
    series.append(t, v)
    for (const columns of [10, 100, 800]) {
      const drawn = series.points(0, 1_000_000, columns)
      expect(Math.max(...drawn.v)).toBe(99)
      expect(drawn.t.length).toBeLessThanOrEqual(columns * 5 + 5)
      expect([...drawn.t]).toEqual([...drawn.t].sort((a, b) => a - b))
    }
  })

  it('keeps an absent value as a break', () => {
    const series = new Series()
    series.append([0, 1, 2, 3], [1, null, 3, 4])
    expect(series.points(0, 3, 1).v.some((value) => Number.isNaN(value))).toBe(true)
    expect(series.range(0, 3)).toEqual([1, 4])
  })

  it('stays bounded, thins the past and leaves the newest half and the spikes', () => {
    const series = new Series(2000)
    for (let k = 0; k < 50_000; k++) series.append([k], [k === 1234 ? 99 : 0])
    expect(series.length).toBeLessThanOrEqual(2001)
    expect(series.range(0, 50_000)).toEqual([0, 99])
    expect(series.time(series.length - 1) - series.time(series.length - 900)).toBe(899)
  })

  it('thins a moving window as it thins a fresh one', () => {
    const next = random(3)
    const kept = new Series(4000)
    const width = 730
    for (let at = 0, k = 0; k < 3000; k++) {
      at += next() < 0.01 ? 9000 : 100
      kept.append([at], [next() < 0.02 ? null : next()])
      if (next() < 0.01) kept.append([at - 150], [next()])
      if (next() < 0.005) kept.replace(at - 5000, at - 3000, [at - 4000], [next()])
      if (k % 7 > 0) continue
      const fresh = new Series(4000)
      const points = all(kept)
      fresh.append(points.map(([t]) => t), points.map(([, v]) => v))
      const window = [at - 60_000, at + next() * width] as const
      expect(kept.moving(...window, width)).toEqual(fresh.moving(...window, width))
    }
  })
})
