import { describe, expect, it } from 'vitest'
import type { Control, Graph, Stream } from '../api/types'
import { arrange, splitId } from './rows'

const channel = (name: string, unit: string, extra = {}) => ({ name, unit, kind: 'F64', ...extra })
const streams: Stream[] = [
  { stream: 'room-sensor/room', nominal_rate_hz: 0.2, channels: [channel('temperature', 'Cel'), channel('humidity', '%')] },
  { stream: 'twin/board', nominal_rate_hz: 10, channels: [channel('t1', 'Cel'), channel('t1_sd', 'Cel'), channel('t1_residual', 'Cel')] },
  { stream: 'mine/loop', channels: [channel('line_pressure', 'kPa'), { name: 'note', unit: '1', kind: 'Utf8' }] },
  { stream: 'power-meter/supply', nominal_rate_hz: 5, channels: [channel('power', 'W')] },
  { stream: 'tclab-01/board', nominal_rate_hz: 10, channels: [channel('t1', 'Cel', { title: 'heater 1 plate', uncertainty: 0.1 }), channel('q1', '%')] },
]
const graphs: Graph[] = [
  {
    id: 'twin',
    model: { name: 'm', digest: 'd', version: '1' },
    tick_ms: 100,
    state: 'running',
    pairs: [{ measured: 'tclab-01/board.t1', output: 'twin/board.t1', sd: 'twin/board.t1_sd', residual: 'twin/board.t1_residual' }],
  },
]
const control: Control = {
  channels: [{ device: 'tclab-01', channel: 'q1', title: 'Q1', graph: 'twin', input: 'q1', unit: '%', value: 45, low: 0, high: 80, age_s: 0.1 }],
  interlocks: [{ id: 'hot', text: 'T1 below 60 °C', ok: true, channels: ['tclab-01/board.t1'], limit: { max: 60, unit: 'Cel' } }],
  lease: null,
}

describe('arrange', () => {
  const rows = arrange(streams, graphs, control)

  it('puts pairs first, then commands, then the bench in its order, then anything else', () => {
    expect(rows.map((row) => `${row.kind} ${row.id}`)).toEqual([
      'pair tclab-01/board.t1',
      'commands tclab-01/commands',
      'signal power-meter/supply.power',
      'signal room-sensor/room.humidity',
      'signal room-sensor/room.temperature',
      'signal mine/loop.line_pressure',
    ])
  })

  it('names and draws an unknown stream from its descriptor', () => {
    expect(rows.at(-1)).toMatchObject({ title: 'Line pressure', subtitle: 'mine/loop', unit: 'kPa', steps: true })
    expect(rows[0]).toMatchObject({ title: 'T1', subtitle: 'heater 1 plate', unit: '°C', limit: { min: null, max: 60 } })
  })

  it('calls a lone number without a name as its stream is called', () => {
    const plain = (device: string, title: string, ...names: string[]): Stream => ({ stream: `${device}/signal`, title, channels: names.map((name) => channel(name, '1')) })
    const titles = (...streams: Stream[]) => arrange(streams, [], null).map((row) => `${row.title}, ${row.subtitle}`)
    expect(titles(plain('a', 'lab/plain_1', 'value'), plain('b', 'lab/plain_2', 'v_0'))).toEqual(['lab/plain_1, a/signal', 'lab/plain_2, b/signal'])
    expect(titles(plain('a', 'lab/both', 'value', 'v_0'), plain('b', 'lab/flow', 'valve'))).toEqual(['Value, a/signal', 'V 0, a/signal', 'Valve, b/signal'])
  })

  it('tells two boards of one kind apart', () => {
    const second = streams.slice(4).map((stream) => ({ ...stream, stream: 'tclab-02/board' }))
    const channels = control.channels.flatMap((c) => [c, { ...c, device: 'tclab-02' }])
    const both = arrange([...streams.slice(4), ...second], [...graphs, ...graphs.map((graph) => ({ ...graph, id: 'other', pairs: graph.pairs.map((pair) => ({ ...pair, measured: 'tclab-02/board.t1' })) }))], { ...control, channels })
    expect(both.map((row) => `${row.title} ${row.subtitle}`)).toEqual(['T1 tclab-01', 'T1 tclab-02', 'Heaters tclab-01', 'Heaters tclab-02'])
  })

  it('shows the measurement alone when no twin runs', () => {
    const alone = arrange(streams.slice(4), [], null)
    expect(alone.map((row) => row.kind)).toEqual(['signal', 'signal'])
  })
})

describe('splitId', () => {
  it('cuts at the first dot after the stream, whose device may hold dots itself', () => {
    expect(splitId('plc.7/air.temp.inner')).toEqual({ stream: 'plc.7/air', channel: 'temp.inner' })
  })
})
