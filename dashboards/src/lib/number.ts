/** Numbers as the page prints them: decimals follow the uncertainty, the minus is a true minus. */

/** Decimals that an uncertainty of this size leaves meaningful: 0.2 → 1, 0.05 → 2, 2 → 0. */
export function decimalsFor(uncertainty: number | null | undefined): number | null {
  if (uncertainty == null || !Number.isFinite(uncertainty) || uncertainty <= 0) return null
  // 0.0999… prints as 0.10: nudge so that rounding up to the next decade does not add a digit.
  const decade = Math.floor(Math.log10(uncertainty * 1.0501))
  return Math.min(6, Math.max(0, -decade))
}

/** Decimals for a value whose uncertainty nobody stated: three significant digits. */
export function decimalsByMagnitude(value: number): number {
  const size = Math.abs(value)
  if (!Number.isFinite(size) || size === 0) return 1
  return Math.min(4, Math.max(0, 2 - Math.floor(Math.log10(size))))
}

export function fixed(value: number, decimals: number): string {
  const text = value.toFixed(decimals)
  if (Number(text) === 0) return text.replace('-', '')
  return text.replace('-', '−')
}

/** With an explicit sign, "+0.7" or "−3.1"; a rounded zero is "+0.0". */
export function signed(value: number, decimals: number): string {
  const text = fixed(value, decimals)
  return text.startsWith('−') ? text : `+${text}`
}

/** "±0.2". */
export function plusMinus(uncertainty: number, decimals?: number): string {
  return `±${fixed(uncertainty, decimals ?? decimalsFor(uncertainty) ?? 1)}`
}

/** A clock offset in ms: none, one or two decimals, as its uncertainty leaves them meaningful. */
export function clockDecimals(uncertainty: number): number {
  return Math.min(2, decimalsFor(uncertainty) ?? 2)
}

/** An uncertainty too small for its decimals is rounded up to the last of them: never "±0.00". */
export function clockHalf(uncertainty: number): number {
  return Math.max(uncertainty, 10 ** -clockDecimals(uncertainty))
}

/** "18 204" with thin grouping for counts in prose. */
export function count(value: number | string): string {
  const digits = String(value)
  return digits.length < 5 ? digits : digits.replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f')
}

/** "10.0 of 10": a rate keeps one decimal more than its nominal would need, two below 0.1 Hz. */
export function rate(hz: number): string {
  return hz >= 1000 ? fixed(hz, 0) : fixed(hz, hz > 0 && hz < 1 ? 2 : 1)
}

const UNITS: Record<string, string> = {
  Cel: '°C', degF: '°F', K: 'K', '1': '', '%': '%', '[ppm]': 'ppm', Ohm: 'Ω', deg: '°', um: 'µm', us: 'µs', uA: 'µA',
  uV: 'µV', m2: 'm²', m3: 'm³', 'm/s2': 'm/s²', 'm3/h': 'm³/h', 'kg/m3': 'kg/m³', '[psi]': 'psi', '[pH]': 'pH',
}

/** A UCUM code as people print it; what is not in the table prints as it is. */
export function unit(ucum: string): string {
  return UNITS[ucum] ?? ucum
}
