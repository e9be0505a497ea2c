/** Hover, drag, wheel, pinch and double-click over the stack of plots: one hairline and one window for all rows. */
import { rig } from '../state/rig.svelte'

export interface PointerOptions {
  timeAt(clientX: number, box: DOMRect): number
  /** Where the plots begin, from the stack's left edge. */
  left(): number
  select(range: { from: number; to: number } | null): void
}

const DRAG_PIXELS = 6

export function pointer(node: HTMLElement, options: PointerOptions) {
  const down = new Map<number, number>()
  let start: number | null = null
  let pinch: number | null = null
  const box = () => node.getBoundingClientRect()
  const time = (event: { clientX: number }) => options.timeAt(event.clientX, box())
  const onPlot = (event: { clientX: number }) => event.clientX - box().left >= options.left()

  function move(event: PointerEvent) {
    if (down.has(event.pointerId)) down.set(event.pointerId, event.clientX)
    if (down.size === 2) return pinched()
    if (!onPlot(event) && start === null) return leave()
    rig.cursor = Math.min(rig.to, Math.max(rig.from, time(event)))
    if (start !== null && Math.abs(event.clientX - start) > DRAG_PIXELS) options.select(span(event))
    rig.invalidate()
  }

  function span(event: PointerEvent) {
    const [a, b] = [time({ clientX: start ?? event.clientX }), time(event)].sort((p, q) => p - q) as [number, number]
    return { from: Math.max(a, rig.from), to: Math.min(b, rig.to) }
  }

  function press(event: PointerEvent) {
    if (event.button !== 0 || !onPlot(event)) return
    down.set(event.pointerId, event.clientX)
    if (event.pointerType !== 'touch') start = event.clientX
    if (down.size === 2) {
      start = null
      pinch = distance()
      options.select(null)
    }
  }

  function release(event: PointerEvent) {
    down.delete(event.pointerId)
    pinch = null
    const from = start
    start = null
    options.select(null)
    if (from === null || Math.abs(event.clientX - from) <= DRAG_PIXELS || event.type === 'pointercancel') return
    start = from
    const range = span(event)
    start = null
    rig.showWindow(range.from, Math.min(range.to, rig.now))
  }

  function distance(): number {
    const [a = 0, b = 0] = [...down.values()]
    return Math.max(10, Math.abs(a - b))
  }

  function pinched() {
    const next = distance()
    const [a = 0, b = 0] = [...down.values()]
    if (pinch !== null) rig.zoom(pinch / next, time({ clientX: (a + b) / 2 }))
    pinch = next
  }

  function wheel(event: WheelEvent) {
    if (!event.ctrlKey && !event.metaKey) return
    event.preventDefault()
    rig.zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) / 300), time(event))
  }

  function leave() {
    if (rig.cursor === null) return
    rig.cursor = null
    rig.invalidate()
  }

  const reset = () => rig.resetWindow()
  node.addEventListener('pointermove', move)
  node.addEventListener('pointerdown', press)
  window.addEventListener('pointerup', release)
  window.addEventListener('pointercancel', release)
  node.addEventListener('pointerleave', leave)
  node.addEventListener('wheel', wheel, { passive: false })
  node.addEventListener('dblclick', reset)
  return {
    update(next: PointerOptions) {
      options = next
    },
    destroy() {
      window.removeEventListener('pointerup', release)
      window.removeEventListener('pointercancel', release)
    },
  }
}
