/** What of the page itself is open: the focused plot, the table, the help, the phone's tab. */

const KEYS = 'orrery.single-keys'

export type Tab = 'charts' | 'devices' | 'heaters' | 'table'

class Page {
  focused = $state<string | null>(null)
  table = $state<string | null>(null)
  help = $state(false)
  /** The cell of the top bar that is open. */
  detail = $state<'latency' | 'proof' | null>(null)
  drawer = $state(false)
  tab = $state<Tab>('charts')
  /** Single-letter keys can be turned off, for those whose speech or switch input types them by accident. */
  singleKeys = $state(localStorage.getItem(KEYS) !== 'off')

  setSingleKeys(on: boolean): void {
    this.singleKeys = on
    if (on) localStorage.removeItem(KEYS)
    else localStorage.setItem(KEYS, 'off')
  }
}

export const page = new Page()
