/** A presence tape: which columns of a span a device spoke in. */

/** Two samples further apart than this many periods have silence between them. */
const PATIENCE = 2.6

/**
 * Closes the holes that a device's own period explains: at four seconds a column, a sensor that speaks every five
 * seconds is there all the time. The same holds for the columns since its last sample.
 */
export function bridge(tape: readonly number[], columnMs: number, periodMs: number): number[] {
  const out = [...tape]
  // Samples in two columns are up to one column further apart than the columns are.
  const reach = (PATIENCE * periodMs) / columnMs + 1
  let last = -1
  for (const [column, here] of tape.entries()) {
    if (!here) continue
    if (last >= 0 && column - last <= reach) out.fill(1, last, column)
    last = column
  }
  if (last >= 0 && out.length - last <= reach) out.fill(1, last)
  return out
}

/** Stretches of presence: first column and width. */
export function runs(tape: readonly number[]): { x: number; w: number }[] {
  const out: { x: number; w: number }[] = []
  for (const [x, here] of tape.entries()) {
    if (!here) continue
    const last = out.at(-1)
    if (last && last.x + last.w === x) last.w++
    else out.push({ x, w: 1 })
  }
  return out
}
