import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Samples } from '../api/types'
import { History } from './history'

const NAME = 'rig/board'
const START = 1_000_000_000

/** A store that holds a sample every 100 ms and answers windows of them as they are. */
function store(asked: URL[]) {
  return (url: string) => {
    const { searchParams } = new URL(url, 'http://here')
    asked.push(new URL(url, 'http://here'))
    const [from, to] = [Number(searchParams.get('from_ms')), Number(searchParams.get('to_ms'))]
    const t: number[] = []
    for (let at = Math.ceil(from / 100) * 100; at <= to; at += 100) t.push(at)
    const body = { stream: NAME, revision: '1', from_ms: from, to_ms: to, bucketed: false, channels: { x: { t, v: t.map((at) => at % 7) } }, gaps: [] }
    return Promise.resolve({ ok: true, status: 200, json: () => Promise.resolve(body) })
  }
}

const block = (first: number, n: number): Samples => {
  const t = Array.from({ length: n }, (_, k) => first + k * 100)
  return { type: 'samples', stream: NAME, t, u_ms: t.map(() => 1), channels: { x: t.map((at) => at % 7) }, revision: '1', cursor: null }
}

describe('History', () => {
  const asked: URL[] = []
  beforeEach(() => {
    asked.length = 0
    vi.stubGlobal('fetch', store(asked))
  })
  afterEach(() => vi.unstubAllGlobals())
  const settle = () => new Promise((resolve) => setTimeout(resolve, 0))

  it('asks once for the past and then lives on the stream', async () => {
    const history = new History(() => {})
    let now = START
    history.ensure([NAME], now - 60_000, now, 600, now, 1)
    await settle()
    // Samples between the answer and the first live block were missed: one more request brings them.
    for (now = START + 2_000; now < START + 60_000; now += 200) {
      history.ingest(block(now, 2))
      history.ensure([NAME], now - 60_000, now, 600, now, 1)
      await settle()
    }
    expect(asked.length).toBe(2)
    const series = history.channel(`${NAME}.x`)
    expect(series.length).toBe((series.time(series.length - 1) - series.time(0)) / 100 + 1)
  })

  it('asks again for what an outage hid', async () => {
    const history = new History(() => {})
    let now = START
    history.ensure([NAME], now - 10_000, now, 600, now, 1)
    await settle()
    history.ingest(block(START + 100, 10))
    history.disconnected()
    now = START + 20_000
    history.ingest(block(now, 2))
    history.ensure([NAME], now - 30_000, now, 600, now, 1)
    await settle()
    const series = history.channel(`${NAME}.x`)
    for (let at = START; at <= now; at += 100) expect(series.time(series.indexAt(at))).toBe(at)
  })

  it('gives up requests that hang, and then asks for the others', async () => {
    const limits: AbortController[] = []
    const timeout = vi.spyOn(AbortSignal, 'timeout').mockImplementation(() => {
      const limit = new AbortController()
      limits.push(limit)
      return limit.signal
    })
    const answers = store(asked)
    vi.stubGlobal('fetch', (url: string, { signal }: RequestInit) => {
      if (url.includes(NAME)) return answers(url)
      return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    })
    const history = new History(() => {})
    const hanging = ['a/x', 'b/x', 'c/x', 'd/x']
    history.ensure([...hanging, NAME], START - 10_000, START, 100, START + 10_000, 1)
    await settle()
    expect(asked.length).toBe(0)
    for (const limit of limits) limit.abort()
    await settle()
    timeout.mockRestore()
    expect(asked.length).toBe(1)
    expect([...history.errors.keys()]).toEqual(hanging)
    expect(history.errors.get('a/x')).toBe('Orrery did not answer within 15 s.')
  })

  it('returns only the times that are news', () => {
    const history = new History(() => {})
    expect(history.ingest(block(START, 3))).toEqual([START, START + 100, START + 200])
    expect(history.ingest(block(START + 100, 3))).toEqual([START + 300])
  })

  it('does not let a coarse window replace finer points', async () => {
    const history = new History(() => {})
    history.ensure([NAME], START - 60_000, START, 600, START + 10_000, 1)
    await settle()
    const before = history.channel(`${NAME}.x`).length
    vi.stubGlobal('fetch', () =>
      Promise.resolve({
        ok: true,
        json: () =>
          Promise.resolve({ stream: NAME, revision: '1', bucketed: true, gaps: [], channels: { x: { t: [START - 3_000_000, START - 30_000], v: [5, 99] } } }),
      }),
    )
    history.ensure([NAME], START - 3_600_000, START, 60, START + 20_000, 0)
    await settle()
    expect([...history.errors.values()]).toEqual([])
    expect(history.channel(`${NAME}.x`).length).toBe(before + 1)
    expect(history.channel(`${NAME}.x`).range(START - 60_000, START)?.[1]).toBeLessThan(7)
  })
})
