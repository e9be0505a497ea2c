/** Waits between attempts to reconnect: 0.5 s doubling to 8 s, ±20 % so that many pages do not return as one. */
export function backoffMs(attempt: number, random: number): number {
  const base = Math.min(8000, 500 * 2 ** Math.max(0, attempt))
  return base * (0.8 + 0.4 * random)
}
