import { describe, expect, it } from 'vitest'
import type { Device } from '../api/types'
import { lines, wording } from './device'

const device = (change: Partial<Device>): Device => ({
  device_id: 'scale', state: 'live', last_sample: null, streams: [], rate: { observed_hz: null, nominal_hz: null }, clock: null, gaps: [], ...change,
})
const gap = (state: 'lost' | 'pending', count: string) => ({ boot_id: 'b', first: '1', last: '2', count, from: null, to: null, state })

describe('a device in words', () => {
  it('is quiet while all is well', () => expect(wording(device({}), 100)).toEqual({ word: null, why: null }))

  it('tells silence, a lost connection and a lost agent apart', () => {
    expect(wording(device({ state: 'silent' }), 47_000)).toEqual({ word: 'silent', why: 'no sample for 47 s, its agent answers' })
    const unplugged = { connected: '0', disconnects: '1' }
    const plugged = { connected: '1', disconnects: '1' }
    expect(wording(device({ state: 'silent', agent_counters: unplugged }), 47_000).word).toBe('disconnected')
    expect(wording(device({ state: 'silent', agent_counters: plugged }), 47_000).word).toBe('silent')
    expect(wording(device({ state: 'stale', agent_counters: unplugged }), 47_000)).toEqual({ word: 'stale', why: 'no sample for 47 s' })
    expect(wording(device({ state: 'stale' }), null)).toEqual({ word: 'never heard', why: 'no sample yet' })
    expect(wording(device({ state: 'ended' as Device['state'] }), 47_000).word).toBe('ended')
  })

  it('numbers what was lost and says what may still come', () => {
    expect(wording(device({ gaps: [gap('lost', '340')] }), 1).why).toBe('1 gap, 340 envelopes lost')
    expect(wording(device({ gaps: [gap('lost', '1'), gap('pending', '3')] }), 1).why).toBe('1 gap, 1 envelope lost, 1 gap open')
  })

  it('lists counters in the order of the path, without what is nought', () => {
    expect(lines({ late_rows: '0', chain_breaks: '2', accepted: '12345', odd_thing: 1 }, false)).toEqual([
      ['Envelopes accepted', '12\u202f345'], ['Breaks of the chain', '2'], ['Odd thing', '1'],
    ])
    expect(lines({ connected: '1', sealed: '0', readings: '7' }, true)).toEqual([['Readings taken', '7'], ['Envelopes sealed', '0']])
  })
})
