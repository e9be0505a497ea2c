/** The keys. None of them sends a command. */
import { neighbour } from '../draw/stack'
import { page } from '../state/page.svelte'
import { commands } from '../state/control.svelte'
import { rig } from '../state/rig.svelte'

const FINE_STEP_MS = 100

export function onKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement
  if (event.altKey || event.metaKey || target.closest('input, select, textarea')) {
    if (event.key === 'Escape') target.blur()
    return
  }
  const button = target.closest('button, a') !== null
  if (event.key.startsWith('Arrow')) {
    if (target.closest('.rows')) return
    if (arrow(event)) event.preventDefault()
    return
  }
  if (event.ctrlKey) return
  if (event.key === ' ' && !button) act(event, () => rig.toggle())
  else if (event.key === 'End') act(event, () => rig.goLive())
  else if (event.key === 'Escape') act(event, escape)
  else if (page.singleKeys) letter(event)
}

function letter(event: KeyboardEvent): void {
  switch (event.key) {
    case 'l':
    case 'L':
      return act(event, () => rig.goLive())
    case '[':
      return act(event, () => rig.stepWindow(-1))
    case ']':
      return act(event, () => rig.stepWindow(1))
    case '+':
    case '=':
      return act(event, () => rig.zoom(1 / 1.5))
    case '-':
    case '−':
      return act(event, () => rig.zoom(1.5))
    case '0':
      return act(event, () => rig.resetWindow())
    case 'j':
    case 'k':
      return act(event, () => focusPlot(event.key === 'j' ? -1 : 1))
    case 't':
      return act(event, () => (page.table ? closeTable() : openTable(page.focused)))
    case '?':
      return act(event, () => (page.help = !page.help))
  }
}

/** The table of a row, or of the first: beside the charts, and on a phone in their place. */
export function openTable(row: string | null): void {
  page.table = row ?? rig.rows[0]?.id ?? null
  if (rig.phone) page.tab = 'table'
}

/** Closes the table and goes back to its plot. */
export function closeTable(): void {
  const row = page.table
  page.table = null
  if (page.tab === 'table') page.tab = 'charts'
  document.querySelector<HTMLElement>(`[data-row="${row}"]`)?.focus()
}

function act(event: KeyboardEvent, action: () => void): void {
  event.preventDefault()
  action()
}

function arrow(event: KeyboardEvent): boolean {
  if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return false
  const direction = event.key === 'ArrowLeft' ? -1 : 1
  if (event.ctrlKey) {
    const at = neighbour(rig.playhead, direction)
    if (at !== null) rig.seek(at)
    else if (direction > 0) rig.goLive()
  } else rig.seek(rig.playhead + direction * (event.shiftKey ? 10_000 : sampleStep()))
  return true
}

/** One sample of the focused plot, at least far enough to leave "now". */
function sampleStep(): number {
  const row = rig.rows.find((r) => r.id === page.focused) ?? rig.rows[0]
  const ref = row === undefined ? undefined : row.kind === 'pair' ? row.measured : row.kind === 'signal' ? row.channel : row.channels[0]
  const period = ref?.periodMs ?? FINE_STEP_MS
  return rig.view.mode === 'live' ? Math.max(period, 500) : period
}

function focusPlot(direction: 1 | -1): void {
  const plots = [...document.querySelectorAll<HTMLElement>('[data-row]')]
  const index = plots.findIndex((plot) => plot.dataset.row === page.focused)
  const next = plots[Math.min(plots.length - 1, Math.max(0, index < 0 ? 0 : index + direction))]
  next?.focus()
}

function escape(): void {
  if (page.detail) page.detail = null
  else if (page.help) page.help = false
  else if (page.table) closeTable()
  else if (page.drawer) page.drawer = false
  else if (commands.changes.length > 0) commands.discard()
  else if (rig.view.windowMs !== rig.defaultWindow) rig.resetWindow()
}
