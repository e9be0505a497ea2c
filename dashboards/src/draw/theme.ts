/** The tokens as a canvas needs them: read once per theme from the same CSS variables the page uses. */

export interface Colours {
  plot: string
  panel: string
  rule: string
  edge: string
  ink: string
  ink2: string
  ink3: string
  twin: string
  band: string
}

let cached: Colours | null = null
let version = 0

/** Rises whenever plots must be drawn again in other colours or with a font that has just loaded. */
export function themeVersion(): number {
  return version
}

export function colours(): Colours {
  return (cached ??= read())
}

export function forgetColours(): void {
  cached = null
  version++
}

function read(): Colours {
  const style = getComputedStyle(document.documentElement)
  const token = (name: string) => style.getPropertyValue(`--${name}`).trim()
  const dark = document.documentElement.dataset.theme === 'dark'
  return {
    plot: token('plot'),
    panel: token('panel'),
    rule: token('rule'),
    edge: token('edge'),
    ink: token('ink'),
    ink2: token('ink-2'),
    ink3: token('ink-3'),
    twin: token('twin'),
    band: withAlpha(token('twin'), dark ? 0.27 : 0.19),
  }
}

/** "#rrggbb" with an alpha. */
export function withAlpha(hex: string, alpha: number): string {
  const value = parseInt(hex.slice(1), 16)
  return `rgb(${value >> 16} ${(value >> 8) & 255} ${value & 255} / ${alpha})`
}

export const FONT = '11px B612, system-ui, sans-serif'
export const BOLD = '700 11px B612, system-ui, sans-serif'
