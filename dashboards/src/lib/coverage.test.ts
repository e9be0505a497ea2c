import { describe, expect, it } from 'vitest'
import { Coverage, holes } from './coverage'
import { Series } from './series'

describe('Coverage', () => {
  it('knows what is here and how finely', () => {
    const coverage = new Coverage()
    coverage.add(0, 100, 6)
    coverage.add(40, 60, 1)
    expect(coverage.covers(0, 100, 6)).toBe(true)
    expect(coverage.covers(40, 60, 1)).toBe(true)
    expect(coverage.covers(30, 60, 1)).toBe(false)
    expect(coverage.missing(0, 120, 1)).toEqual([{ from: 0, to: 40 }, { from: 60, to: 120 }])
    expect(coverage.missing(0, 120, 6)).toEqual([{ from: 100, to: 120 }])
  })

  it('grows with live data only where it joins', () => {
    const coverage = new Coverage()
    coverage.add(0, 100, 0)
    coverage.extend(100, 110)
    expect(coverage.covers(0, 110, 0)).toBe(true)
    coverage.extend(150, 160)
    expect(coverage.missing(0, 160, 0)).toEqual([{ from: 110, to: 150 }])
  })

  it('forgets what late data made wrong', () => {
    const coverage = new Coverage()
    coverage.add(0, 100, 0)
    coverage.forget(20, 30)
    expect(coverage.missing(0, 100, 0)).toEqual([{ from: 20, to: 30 }])
  })
})

describe('holes', () => {
  const every = (period: number, skip: (t: number) => boolean) =>
    Array.from({ length: 200 }, (_, k) => k * period).filter((t) => !skip(t))

  it('finds the silence of a regular stream and no other', () => {
    const t = every(100, (at) => at > 5000 && at < 9000)
    expect(holes(t, 100, new Coverage(), 1)).toEqual([{ from: 5000, to: 9000 }])
    expect(holes(every(100, () => false), 100, new Coverage(), 1)).toEqual([])
  })

  it('does not take the width of a column for silence', () => {
    const coverage = new Coverage()
    coverage.add(0, 1_200_000, 6000)
    expect(holes(every(6000, () => false), 100, coverage, 1)).toEqual([])
  })

  it('does not take what a thinned line leaves out for silence', () => {
    const series = new Series()
    const t = every(100, (at) => at > 12_000 && at < 16_000)
    series.append(t, t)
    for (const width of [50, 700, 1450, 2900]) {
      const points = series.points(0, 20_000, 20_000 / width)
      expect(holes(points.t, 100, new Coverage(), width, points.v), `${width} ms a column`).toEqual([{ from: 12_000, to: 16_000 }])
    }
  })

  it('leaves irregular streams alone', () => expect(holes([0, 1e6], null, new Coverage(), 1)).toEqual([]))
})
