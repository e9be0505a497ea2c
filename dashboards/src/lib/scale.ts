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

/** A range of `span` or more on half steps that holds [low, high], as centred as the half steps allow. */
export function roundRange(low: number, high: number, span: number, pixels: number, minPixels = 44): Range {
  const step = niceStep(Math.max(span, high - low), pixels, minPixels)
  const half = step / 2
  let size = Math.max(1, Math.ceil(Math.max(span, high - low) / half - 1e-9)) * half
  for (let attempt = 0; attempt < 3; attempt++, size += half) {
    const start = Math.round(((low + high - size) / 2) / half) * half
    for (const min of [start, start - half, start + half]) {
      if (min <= low + 1e-9 && min + size >= high - 1e-9) return { min, max: min + size, step }
    }
  }
  return { min: low, max: high, step }
}

/** Grid lines inside a range. */
export function gridLines(range: Range): number[] {
  const out: number[] = []
  for (let k = Math.ceil(range.min / range.step - 1e-9); k * range.step <= range.max + 1e-9; k++) out.push(k * range.step)
  return out
}

/** Grows at once so that no point is ever cut off; shrinks only after the smaller range sufficed for ten seconds. */
export class HeldScale {
  private held: Range | null = null
  private tooWideSince: number | null = null
  private pixels = 0

  update(low: number, high: number, span: number, pixels: number, now: number, frozen: boolean, minPixels = 44): Range {
    const wanted = roundRange(low, high, span, pixels, minPixels)
    const held = this.held
    if (held === null || pixels !== this.pixels) return this.take(wanted, pixels)
    if (frozen) return held
    const holds = held.min <= low && held.max >= high && held.max - held.min >= span - 1e-9
    if (!holds) return this.take(wanted, pixels)
    if (same(held, wanted)) this.tooWideSince = null
    else if (this.tooWideSince === null || now < this.tooWideSince) this.tooWideSince = now
    else if (now - this.tooWideSince >= HOLD_MS) return this.take(wanted, pixels)
    return held
  }

  /** A new window is a new question: take the fitting range at once. */
  reset(): void {
    this.held = null
  }

  private take(range: Range, pixels: number): Range {
    this.held = range
    this.pixels = pixels
    this.tooWideSince = null
    return range
  }
}

function same(a: Range, b: Range): boolean {
  return a.min === b.min && a.max === b.max
}
