import { describe, expect, it } from 'vitest'
import { gridLines, HeldScale, HeldSpan, niceStep, roundRange } from './scale'

describe('roundRange', () => {
  it('always holds the data on half steps', () => {
    for (let k = 0; k < 500; k++) {
      const low = Math.sin(k) * 100
      const high = low + 0.01 + Math.abs(Math.cos(k * 1.7)) * 40
      const range = roundRange(low, high, high - low, 180)
      expect(range.min).toBeLessThanOrEqual(low + 1e-6)
      expect(range.max).toBeGreaterThanOrEqual(high - 1e-6)
      const half = range.step / 2
      expect(Math.abs(range.min / half - Math.round(range.min / half))).toBeLessThan(1e-6)
    }
  })

  it('gives two quantities of one unit the same degrees per pixel', () => {
    const a = roundRange(38, 61, 23, 180)
    const b = roundRange(35, 42, 23, 180)
    expect(b.max - b.min).toBe(a.max - a.min)
    expect(a.step).toBe(b.step)
  })

  it('uses steps of 1, 2 and 5', () => {
    expect(niceStep(27, 180, 44)).toBe(10)
    expect(niceStep(0.9, 60, 15)).toBe(0.5)
  })

  it('has its grid lines inside', () => {
    expect(gridLines({ min: 35, max: 62.5, step: 10 })).toEqual([40, 50, 60])
  })
})

describe('HeldSpan and HeldScale', () => {
  it('grow at once, hold for ten seconds, then step back once', () => {
    const span = new HeldSpan()
    const scale = new HeldScale()
    const at = (low: number, high: number, now: number) => scale.update(low, high, span.update(high - low, now), 180, now, false)
    const first = at(40, 50, 0)
    const grown = at(40, 80, 100)
    expect(grown.max).toBeGreaterThanOrEqual(80)
    expect(at(40, 50, 5_000)).toEqual(grown)
    expect(at(41, 50, 9_900)).toEqual(grown)
    expect(at(40, 50, 15_100)).toEqual(first)
  })

  it('keeps one scale for a group whatever each row does', () => {
    const span = new HeldSpan()
    const rows = [new HeldScale(), new HeldScale()]
    for (let k = 0; k < 300; k++) {
      const data = [0, 1].map((row) => [40 + 9 * Math.sin(k / 9 + row), 46 + 9 * Math.sin(k / 7 + row) + (k % 50)] as [number, number])
      const sorted = data.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as [number, number])
      const held = span.update(Math.max(...sorted.map(([a, b]) => b - a)), k * 1000)
      const ranges = rows.map((row, n) => row.update(...(sorted[n] as [number, number]), held, 180, k * 1000, false))
      const sizes = ranges.map((range) => range.max - range.min)
      expect(sizes[0]).toBeCloseTo(sizes[1] as number, 9)
      ranges.forEach((range, n) => expect(range.min <= (sorted[n]?.[0] ?? 0) + 1e-9 && range.max >= (sorted[n]?.[1] ?? 0) - 1e-9).toBe(true))
    }
  })

  it('does not change during a drag', () => {
    const scale = new HeldScale()
    const first = scale.update(0, 10, 10, 100, 0, false)
    expect(scale.update(0, 99, 99, 100, 1, true)).toEqual(first)
  })
})
