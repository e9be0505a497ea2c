import { describe, expect, it } from 'vitest'
import { clock, duration, durationShort, MINUTE, parseTime, ticks } from './time'

const noon = Date.UTC(2026, 10, 21, 14, 32, 7, 480)

describe('clock', () => {
  it('prints UTC and never a time not yet reached', () => {
    expect(clock(noon)).toBe('14:32:07')
    expect(clock(noon, 1)).toBe('14:32:07.4')
    expect(clock(noon + 519, 3)).toBe('14:32:07.999')
  })
})

describe('duration', () => {
  it.each([
    [0, '0.0 s'],
    [400, '0.4 s'],
    [34_000, '34 s'],
    [191_000, '3 min 11 s'],
    [240_000, '4 min'],
    [3_900_000, '1 h 5 min'],
    [12 * 86_400_000, '12 days'],
  ])('%d ms is %s', (ms, text) => expect(duration(ms)).toBe(text))

  it('keeps one unit where there is room for one', () => {
    expect(durationShort(47_000)).toBe('47 s')
    expect(durationShort(191_000)).toBe('3 min')
  })
})

describe('ticks', () => {
  it('are round, ascending and far enough apart at every zoom', () => {
    for (const span of [5_000, 30_000, 600_000, 3_600_000, 86_400_000]) {
      const marks = ticks(noon, noon + span, 800)
      expect(marks.length).toBeGreaterThan(2)
      marks.slice(1).forEach((tick, k) => {
        const gap = ((tick.at - (marks[k]?.at ?? 0)) / span) * 800
        expect(gap).toBeGreaterThanOrEqual(71.9)
      })
    }
    expect(ticks(noon, noon + 10 * MINUTE, 750)[0]?.label).toBe('14:33')
  })

  it('has none on an axis without width', () => expect(ticks(0, 0, 100)).toEqual([]))
})

describe('parseTime', () => {
  it('keeps nanoseconds as far as a float can', () => {
    expect(parseTime('2026-11-21T14:32:07.480000000Z')).toBe(noon)
    expect(parseTime('1970-01-01T00:00:00.000500000Z')).toBeCloseTo(0.5, 9)
    expect(parseTime(null)).toBeNull()
    expect(parseTime('yesterday')).toBeNull()
  })
})
