/** What the page shows: live, paused or replay, which window, and at what speed. Pure: the caller supplies the time. */
import { HOUR, SECOND } from './time'

export type Mode = 'live' | 'paused' | 'replay'

export interface View {
  mode: Mode
  /** The playhead in paused and replay; ignored while live. */
  at: number
  /** Replay runs on by itself. */
  playing: boolean
  speed: number
  windowMs: number
}

export const SPEEDS = [0.1, 1, 10, 60]
export const MIN_WINDOW = 5 * SECOND
export const MAX_WINDOW = HOUR
const WINDOWS = [5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600].map((s) => s * SECOND)
/** A playhead this close to now is now. */
const SNAP = 300

export function live(windowMs: number): View {
  return { mode: 'live', at: 0, playing: false, speed: 1, windowMs }
}

export function playhead(view: View, now: number): number {
  return view.mode === 'live' ? now : view.at
}

export function pause(view: View, now: number): View {
  return { ...view, mode: 'paused', at: playhead(view, now), playing: false }
}

export function goLive(view: View): View {
  return { ...live(view.windowMs), speed: view.speed }
}

/** Moves the playhead; reaching the right end returns to live, the left end is where the store begins. */
export function seek(view: View, at: number, now: number, oldest: number): View {
  if (at >= now - SNAP) return goLive(view)
  return { ...view, mode: 'replay', at: Math.max(at, oldest) }
}

/** Space: live ⇄ paused; in replay it starts and stops the playback. */
export function toggle(view: View, now: number): View {
  if (view.mode === 'live') return pause(view, now)
  if (view.mode === 'paused') return goLive(view)
  return { ...view, playing: !view.playing }
}

/** Playback advances by real time × speed and joins live when it catches up. */
export function advance(view: View, elapsedMs: number, now: number): View {
  if (view.mode !== 'replay' || !view.playing) return view
  const at = view.at + elapsedMs * view.speed
  return at >= now - SNAP ? goLive(view) : { ...view, at }
}

/** Scales the window about `pivot`, or about the right end while live. */
export function zoom(view: View, factor: number, now: number, pivot: number | null): View {
  const windowMs = clampWindow(view.windowMs * factor)
  if (view.mode === 'live' || pivot === null) return { ...view, windowMs }
  const share = (playhead(view, now) - pivot) / view.windowMs
  const at = pivot + share * windowMs
  return at >= now - SNAP ? goLive({ ...view, windowMs }) : { ...view, windowMs, at }
}

/** Shows exactly [from, to]: a drag across a plot, or the brush. A window that ends at now stays live. */
export function showWindow(view: View, from: number, to: number, now: number, oldest: number): View {
  const windowMs = clampWindow(to - from)
  return seek({ ...view, windowMs, playing: false }, to, now, oldest)
}

/** The next round window, shorter (−1) or longer (+1). */
export function stepWindow(view: View, direction: 1 | -1): View {
  const candidates = direction > 0 ? WINDOWS : [...WINDOWS].reverse()
  const next = candidates.find((ms) => (direction > 0 ? ms > view.windowMs + 1 : ms < view.windowMs - 1))
  return { ...view, windowMs: next ?? view.windowMs }
}

function clampWindow(ms: number): number {
  return Math.min(MAX_WINDOW, Math.max(MIN_WINDOW, ms))
}

/** How much of the future the plots show: up to the forecast's horizon, never more than a fixed share of the window. */
export function aheadMs(windowMs: number, horizonMs: number, share: number): number {
  return Math.min(horizonMs, windowMs * share)
}
