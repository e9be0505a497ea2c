import { describe, expect, it } from 'vitest'
import { type Label, overlaps, place, RANK } from './labels'

const bounds = { x: 0, y: 0, w: 200, h: 100 }
const label = (rank: number, at: { x: number; y: number }[]): Label => ({ rank, lines: ['x'], w: 40, h: 14, at, style: '' })

describe('place', () => {
  it('never lets two labels overlap or leave the plot', () => {
    const labels = Array.from({ length: 60 }, (_, k) =>
      label(k % 7, [
        { x: (k * 37) % 220, y: (k * 13) % 110 },
        { x: (k * 53) % 220, y: (k * 29) % 110 },
      ]),
    )
    const placed = place(labels, bounds)
    expect(placed.length).toBeGreaterThan(5)
    placed.forEach((a, i) => {
      expect(a.x >= 0 && a.y >= 0 && a.x + a.w <= 200 && a.y + a.h <= 100).toBe(true)
      placed.slice(i + 1).forEach((b) => expect(overlaps(a, b)).toBe(false))
    })
  })

  it('flips sides before it drops, and drops the lower rank', () => {
    const now = label(RANK.now, [{ x: 100, y: 50 }])
    const gap = label(RANK.gap, [{ x: 110, y: 50 }, { x: 50, y: 50 }])
    const ahead = label(RANK.ahead, [{ x: 120, y: 50 }])
    const placed = place([ahead, gap, now], bounds)
    expect(placed.map((p) => p.label)).toEqual([now, gap])
    expect(placed[1]?.x).toBe(50)
  })

  it('keeps clear of what must stay visible', () => {
    expect(place([label(0, [{ x: 10, y: 10 }])], bounds, () => true)).toEqual([])
  })
})
