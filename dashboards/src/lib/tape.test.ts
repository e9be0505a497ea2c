import { describe, expect, it } from 'vitest'
import { bridge, runs } from './tape'

describe('bridge', () => {
  const slow = Array.from({ length: 150 }, (_, k) => (k % 2 ? 0 : 1))

  it('shows a slow sensor that keeps its period as present throughout', () => {
    expect(bridge(slow, 4000, 5000)).toEqual(slow.map(() => 1))
  })

  it('keeps the silence of a fast one', () => {
    const tape = slow.map((_, k) => (k >= 60 && k < 69 ? 0 : 1))
    expect(bridge(tape, 4000, 100)).toEqual(tape)
    expect(runs(tape)).toEqual([{ x: 0, w: 60 }, { x: 69, w: 81 }])
  })

  it('does not invent a presence before the first or long after the last sample', () => {
    const tape = [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    expect(bridge(tape, 4000, 100)).toEqual(tape)
    expect(bridge([0, 0], 4000, 100)).toEqual([0, 0])
  })
})
