/** Vertical scales that step to round limits, hold them for ten seconds and never jitter. */

export interface Range {
  min: number
  max: number
  step: number
}

const HOLD_MS = 10_000

/** The 1-2-5 step that leaves at least `minPixels` between lines. */
export function niceStep(span: number, pixels: number, minPixels: number): number {
  const least = Math.max(1e-9, (span / Math.max(1, pixels)) * minPixels)
  const decade = 10 ** Math.floor(Math.log10(least))
  const factor = [1, 2, 5, 10].find((f) => f * decade >= least * 0.999) ?? 10
  return factor * decade
}

/** The step and size that any data of this span fits into, wherever it lies: half a step is left to align it. */
function sizeFor(span: number, pixels: number, minPixels: number): { step: number; size: number } {
  const step = niceStep(span, pixels, minPixels)
  return { step, size: (Math.ceil((2 * span) / step - 1e-9) + 1) * (step / 2) }
}

/** A range on half steps that holds [low, high]. Its size depends on `span` alone, so equal spans share a scale. */
export function roundRange(low: number, high: number, span: number, pixels: number, minPixels = 44): Range {
  const { step, size } = sizeFor(Math.max(span, high - low), pixels, minPixels)
  const half = step / 2
  const centred = Math.round((low + high - size) / 2 / half) * half
  const least = Math.ceil((high - size) / half - 1e-9) * half
  const most = Math.floor(low / half + 1e-9) * half
  const min = Math.min(most, Math.max(least, centred))
  return { min, max: min + size, step }
}

/** Grid lines inside a range. */
export function gridLines(range: Range): number[] {
  const out: number[] = []
  for (let k = Math.ceil(range.min / range.step - 1e-9); k * range.step <= range.max + 1e-9; k++) out.push(k * range.step)
  return out
}

/** A span that grows at once and shrinks only after a smaller one sufficed for ten seconds. */
export class HeldSpan {
  private held = 0
  private needlessSince: number | null = null

  update(span: number, now: number): number {
    if (span > this.held || this.held === 0) this.take(span)
    else if (span > this.held * 0.8) this.needlessSince = null
    else if (this.needlessSince === null || now < this.needlessSince) this.needlessSince = now
    else if (now - this.needlessSince >= HOLD_MS) this.take(span)
    return this.held
  }

  reset(): void {
    this.held = 0
  }

  private take(span: number): void {
    this.held = span
    this.needlessSince = null
  }
}

/** Keeps a range of a given span while the data stays inside, and moves it to the middle after ten seconds. */
export class HeldScale {
  private held: Range | null = null
  private offCentreSince: number | null = null
  private pixels = 0

  update(low: number, high: number, span: number, pixels: number, now: number, frozen: boolean, minPixels = 44): Range {
    const wanted = roundRange(low, high, span, pixels, minPixels)
    const held = this.held
    if (held === null || pixels !== this.pixels) return this.take(wanted, pixels)
    if (frozen) return held
    const sameScale = Math.abs(held.max - held.min - (wanted.max - wanted.min)) < 1e-9 && held.step === wanted.step
    if (!sameScale || held.min > low || held.max < high) return this.take(wanted, pixels)
    if (Math.abs(held.min - wanted.min) < 1e-9) this.offCentreSince = null
    else if (this.offCentreSince === null || now < this.offCentreSince) this.offCentreSince = now
    else if (now - this.offCentreSince >= HOLD_MS) return this.take(wanted, pixels)
    return held
  }

  /** A new window is a new question: take the fitting range at once. */
  reset(): void {
    this.held = null
  }

  private take(range: Range, pixels: number): Range {
    this.held = range
    this.pixels = pixels
    this.offCentreSince = null
    return range
  }
}
