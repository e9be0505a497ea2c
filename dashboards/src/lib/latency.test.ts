import { describe, expect, it } from 'vitest'
import { ClockProbe, LatencyWindow, quantile } from './latency'

describe('ClockProbe', () => {
  it('finds the offset within half the least round trip', () => {
    const probe = new ClockProbe()
    const offset = 1234.5
    for (let k = 0; k < 20; k++) {
      const [there, back] = [1 + (k % 7), 2 + (k % 5) * 3]
      probe.add(k * 100, k * 100 + there + offset, k * 100 + there + back)
    }
    const estimate = probe.estimate()
    expect(Math.abs((estimate?.offset ?? 0) - offset)).toBeLessThanOrEqual(estimate?.uncertainty ?? 0)
    expect(estimate?.uncertainty).toBe(1.5)
  })

  it('forgets after a minute and knows nothing at first', () => {
    const probe = new ClockProbe()
    expect(probe.estimate()).toBeNull()
    probe.add(0, 0, 1)
    probe.add(70_000, 70_010, 70_020)
    expect(probe.estimate()?.uncertainty).toBe(10)
  })
})

describe('LatencyWindow', () => {
  it('forgets the start of the page after its window', () => {
    const window = new LatencyWindow(60_000, 1000)
    for (let k = 0; k < 5; k++) window.add(k * 100, 644, 9)
    for (let k = 1; k <= 100; k++) window.add(1000 + k * 500, k, 0.8)
    expect(window.summary(51_000)).toMatchObject({ p99: 644, count: 105, spanMs: 51_000 })
    expect(window.summary(61_000)).toEqual({ p50: 50, p99: 99, count: 100, uncertainty: 0.8, spanMs: 59_500 })
    expect(window.summary(120_000)).toBeNull()
  })
  it('keeps the newest of more than it holds', () => {
    const window = new LatencyWindow(60_000, 100)
    for (let k = 0; k < 950; k++) window.add(k, k < 850 ? 9999 : 1, 0)
    expect(window.summary(1000)).toMatchObject({ p99: 1, count: 100, spanMs: 150 })
    window.clear()
    expect(window.summary(1000)).toBeNull()
  })
  it('has no quantile of nothing', () => expect(quantile([], 0.5)).toBeNaN())
})
