/** Which past the page holds, and how finely: decides what to fetch and how far apart two joined points may be. */

interface Piece {
  from: number
  to: number
  /** Width of the server's column in ms; 0 where every sample is here. */
  resolution: number
}

export class Coverage {
  private pieces: Piece[] = []

  /** Records a fetched window; it supersedes what it overlaps. */
  add(from: number, to: number, resolution: number): void {
    if (!(to > from)) return
    const next: Piece[] = []
    for (const piece of this.pieces) {
      if (piece.to <= from || piece.from >= to) next.push(piece)
      else {
        if (piece.from < from) next.push({ ...piece, to: from })
        if (piece.to > to) next.push({ ...piece, from: to })
      }
    }
    next.push({ from, to, resolution })
    next.sort((a, b) => a.from - b.from)
    this.pieces = next.reduce<Piece[]>((merged, piece) => {
      const last = merged.at(-1)
      if (last && last.to >= piece.from && last.resolution === piece.resolution) last.to = piece.to
      else merged.push({ ...piece })
      return merged
    }, [])
  }

  /** Live data extends the end: every sample in [from, to] is here. */
  extend(from: number, to: number): void {
    const last = this.pieces.at(-1)
    if (last && last.resolution === 0 && last.to >= from) last.to = Math.max(last.to, to)
    else this.add(Math.max(from, last?.to ?? from), to, 0)
  }

  /** Late data or a reconnect: this window must be fetched again. */
  forget(from: number, to: number): void {
    this.add(from, to, Infinity)
    this.pieces = this.pieces.filter((piece) => piece.resolution !== Infinity)
  }

  covers(from: number, to: number, resolution: number): boolean {
    return this.missing(from, to, resolution).length === 0
  }

  /** The parts of [from, to] that are not here at least as finely as `resolution`. */
  missing(from: number, to: number, resolution: number): Hole[] {
    const out: Hole[] = []
    let at = from
    for (const piece of this.pieces) {
      if (piece.to <= at || piece.resolution > resolution) continue
      if (piece.from >= to) break
      if (piece.from > at) out.push({ from: at, to: piece.from })
      at = piece.to
    }
    if (at < to) out.push({ from: at, to })
    return out
  }

  resolutionAt(at: number): number {
    for (const piece of this.pieces) if (at >= piece.from && at <= piece.to) return piece.resolution
    return 0
  }
}

export interface Hole {
  from: number
  to: number
}

/**
 * Where a regular stream is silent for longer than its period and the page's resolution can explain.
 * `t` are points with their values, thinned to columns of `columnMs`; an irregular stream (no period) has no holes.
 */
export function holes(t: readonly number[], periodMs: number | null, coverage: Coverage, columnMs: number, v?: readonly number[]): Hole[] {
  if (periodMs === null) return []
  const out: Hole[] = []
  let previous: number | null = null
  for (let i = 0; i < t.length; i++) {
    if (v && Number.isNaN(v[i])) continue
    const at = t[i] as number
    if (previous !== null && at - previous > breakAfter(periodMs, coverage, previous, columnMs)) out.push({ from: previous, to: at })
    previous = at
  }
  return out
}

/**
 * Two points further apart than this are not joined. Within one column of a thinned line only extremes are kept, so
 * points a column apart may well have had others between them.
 */
export function breakAfter(periodMs: number, coverage: Coverage, at: number, columnMs: number): number {
  return Math.max(columnMs, 2.6 * Math.max(periodMs, coverage.resolutionAt(at)) + 400)
}
