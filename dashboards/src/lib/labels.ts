/** Direct labels: ranked, flipped to another side on a collision, then dropped. They never overlap. */

export interface Box {
  x: number
  y: number
  w: number
  h: number
}

/** Lower rank wins. */
export const RANK = { now: 0, series: 1, limit: 2, gap: 3, note: 4, band: 5, ahead: 6 } as const

export interface Label {
  rank: number
  lines: string[]
  w: number
  h: number
  /** Top-left corners to try, best first. */
  at: { x: number; y: number }[]
  /** Drawn along; the placement does not look at it. */
  style: string
}

export interface Placed extends Box {
  label: Label
}

export function overlaps(a: Box, b: Box): boolean {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}

/** Places labels inside `bounds`; `blocked` says whether a box would cover something that must stay visible. */
export function place(labels: Label[], bounds: Box, blocked: (box: Box, label: Label) => boolean = () => false): Placed[] {
  const placed: Placed[] = []
  const order = labels.map((label, index) => ({ label, index })).sort((a, b) => a.label.rank - b.label.rank || a.index - b.index)
  for (const { label } of order) {
    for (const corner of label.at) {
      const box = { x: corner.x, y: corner.y, w: label.w, h: label.h }
      const inside = box.x >= bounds.x && box.y >= bounds.y && box.x + box.w <= bounds.x + bounds.w && box.y + box.h <= bounds.y + bounds.h
      if (!inside || placed.some((other) => overlaps(box, other)) || blocked(box, label)) continue
      placed.push({ ...box, label })
      break
    }
  }
  return placed
}
