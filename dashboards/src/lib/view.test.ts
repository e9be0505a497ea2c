import { describe, expect, it } from 'vitest'
import { backoffMs } from './backoff'
import * as v from './view'

const now = 1_000_000_000
const oldest = now - 3_600_000
const ten = 600_000

describe('view', () => {
  it('pauses, resumes and keeps the instant', () => {
    const paused = v.toggle(v.live(ten), now)
    expect([paused.mode, v.playhead(paused, now + 5000)]).toEqual(['paused', now])
    expect(v.toggle(paused, now + 5000).mode).toBe('live')
  })

  it('enters replay by seeking and returns to live at the right end', () => {
    const replay = v.seek(v.live(ten), now - 60_000, now, oldest)
    expect(replay.mode).toBe('replay')
    expect(v.seek(replay, now - 100, now, oldest).mode).toBe('live')
    expect(v.seek(replay, 0, now, oldest).at).toBe(oldest)
  })

  it('plays at its speed and joins live when it catches up', () => {
    const playing = v.toggle({ ...v.seek(v.live(ten), now - 60_000, now, oldest), speed: 60 }, now)
    expect(v.advance(playing, 500, now).at).toBe(now - 30_000)
    expect(v.advance(playing, 1000, now + 1000).mode).toBe('replay')
    expect(v.advance(playing, 1000, now).mode).toBe('live')
    expect(v.advance(v.live(ten), 1000, now)).toEqual(v.live(ten))
  })

  it('zooms about the pointer and stays within its limits', () => {
    const replay = v.seek(v.live(ten), now - ten, now, oldest)
    const pivot = now - ten - 150_000
    const zoomed = v.zoom(replay, 0.5, now, pivot)
    const share = (view: v.View) => (v.playhead(view, now) - pivot) / view.windowMs
    expect(share(zoomed)).toBeCloseTo(share(replay), 9)
    expect(v.zoom(replay, 1e-9, now, null).windowMs).toBe(v.MIN_WINDOW)
    expect(v.zoom(replay, 1e9, now, null).windowMs).toBe(v.MAX_WINDOW)
    expect(v.zoom(v.live(ten), 0.5, now, pivot).mode).toBe('live')
  })

  it('shows a dragged window, live when it ends at now', () => {
    expect(v.showWindow(v.live(ten), now - 60_000, now, now, oldest)).toMatchObject({ mode: 'live', windowMs: 60_000 })
    expect(v.showWindow(v.live(ten), now - 120_000, now - 60_000, now, oldest)).toMatchObject({ mode: 'replay', at: now - 60_000, windowMs: 60_000 })
  })

  it('steps through round windows', () => {
    expect(v.stepWindow(v.live(ten), -1).windowMs).toBe(300_000)
    expect(v.stepWindow(v.live(ten), 1).windowMs).toBe(1_200_000)
    expect(v.stepWindow(v.live(v.MAX_WINDOW), 1).windowMs).toBe(v.MAX_WINDOW)
  })

  it('shows 90 s ahead of ten minutes and less of less', () => {
    expect(v.aheadMs(ten, 90_000, 0.15)).toBe(90_000)
    expect(v.aheadMs(60_000, 90_000, 0.15)).toBe(9_000)
  })
})

describe('backoff', () => {
  it('grows from half a second to eight, with jitter', () => {
    expect([0, 1, 2, 3, 4, 9].map((n) => backoffMs(n, 0.5))).toEqual([500, 1000, 2000, 4000, 8000, 8000])
    expect(backoffMs(0, 0)).toBe(400)
    expect(backoffMs(0, 1)).toBeCloseTo(600)
  })
})
