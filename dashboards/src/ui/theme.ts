/** Light and dark: the system decides until the operator does. */
import { forgetColours } from '../draw/theme'
import { rig } from '../state/rig.svelte'

const KEY = 'orrery.theme'

function system(): 'light' | 'dark' {
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
}

export function apply(theme: string): void {
  document.documentElement.dataset.theme = theme
  forgetColours()
  rig.invalidate()
}

export function toggleTheme(): void {
  const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'
  // Back to what the system says: follow it again.
  if (next === system()) localStorage.removeItem(KEY)
  else localStorage.setItem(KEY, next)
  apply(next)
}

export function followSystem(): void {
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    if (!localStorage.getItem(KEY)) apply(system())
  })
}
