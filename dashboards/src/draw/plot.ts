/** One uPlot per plot: it owns scales, grid and axis; the marks of `marks.ts` are drawn in its hooks, in CSS pixels. */
import uPlot from 'uplot'
import { fixed } from '../lib/number'
import { gridLines, type Range } from '../lib/scale'
import { colours, type Colours, FONT } from './theme'

/** What a mark needs to draw: pixel positions of times and values, in CSS pixels. */
export interface Surface {
  ctx: CanvasRenderingContext2D
  colours: Colours
  x(time: number): number
  y(value: number): number
  left: number
  top: number
  right: number
  bottom: number
  from: number
  to: number
}

/** Room for the dot at now and for some samples before it. */
const TIP_WIDTH = 24
const TIP_LEFT = 16

export class Plot {
  private readonly u: uPlot
  private range: Range = { min: 0, max: 1, step: 1 }
  private from = 0
  private to = 1
  private under: (surface: Surface) => void = () => {}
  private over: (surface: Surface) => void = () => {}
  private painted = ''
  /** A narrow canvas over "now": what came since the plot was painted goes there, and the plot need not be painted. */
  private readonly tip = document.createElement('canvas')
  private tipped = ''

  constructor(host: HTMLElement, private width: number, private height: number, axisWidth: number) {
    this.u = new uPlot(
      {
        width,
        height,
        padding: [0, 0, 0, 0],
        pxAlign: 1,
        legend: { show: false },
        cursor: { show: false },
        select: { show: false, left: 0, top: 0, width: 0, height: 0 },
        scales: {
          x: { time: false, range: () => [this.from, this.to] },
          y: { range: () => [this.range.min, this.range.max] },
        },
        axes: [
          { show: false },
          {
            size: axisWidth,
            gap: 8,
            font: FONT,
            stroke: () => colours().ink2,
            grid: { stroke: () => colours().rule, width: 1 },
            ticks: { show: false },
            splits: () => this.visibleLines(),
            values: (_u, splits) => splits.map((value) => fixed(value, decimals(this.range.step))),
          },
        ],
        series: [{}, { show: true, stroke: 'transparent', points: { show: false }, paths: () => null }],
        hooks: {
          drawClear: [() => this.draw(this.under)],
          draw: [() => this.draw(this.over)],
        },
      },
      [
        [0, 1],
        [0, 1],
      ],
      host,
    )
    this.u.root.setAttribute('aria-hidden', 'true')
    this.tip.setAttribute('aria-hidden', 'true')
    this.tip.style.cssText = 'position: absolute; top: 0; pointer-events: none'
    host.append(this.tip)
  }

  /** Whether a value lies on the scale as it was painted. */
  holds(value: number): boolean {
    return value >= this.range.min && value <= this.range.max
  }

  /** Draws what is new around `at` on the scales of the last paint, unless `key` says it is drawn already. */
  paintTip(key: string, at: number, marks: (s: Surface) => void): void {
    const now = `${key} ${this.painted}`
    if (now === this.tipped) return
    this.tipped = now
    const { tip, height } = this
    const ratio = uPlot.pxRatio
    const left = Math.round(this.surface(this.u.ctx).x(at)) - TIP_LEFT
    const [w, h] = [Math.round(TIP_WIDTH * ratio), Math.round(height * ratio)]
    if (tip.width !== w || tip.height !== h) {
      tip.width = w
      tip.height = h
      tip.style.width = `${TIP_WIDTH}px`
      tip.style.height = `${height}px`
    }
    tip.style.left = `${left}px`
    const ctx = tip.getContext('2d')
    if (!ctx) return
    ctx.setTransform(1, 0, 0, 1, 0, 0)
    ctx.clearRect(0, 0, w, h)
    ctx.setTransform(ratio, 0, 0, ratio, -left * ratio, 0)
    marks(this.surface(ctx))
  }

  clearTip(): void {
    if (this.tipped === '') return
    this.tipped = ''
    this.tip.getContext('2d')?.clearRect(-1e4, 0, 2e4, 1e4)
  }

  resize(width: number, height: number): void {
    if (width === this.width && height === this.height) return
    this.width = width
    this.height = height
    this.u.setSize({ width, height })
  }

  /** Draws one instant unless `key` says it is drawn already. `under` goes below the grid, `over` above it. */
  paint(key: string, from: number, to: number, range: Range, under: (s: Surface) => void, over: (s: Surface) => void): void {
    const now = `${key} ${from} ${to} ${range.min} ${range.max} ${this.width} ${this.height}`
    if (now === this.painted) return
    this.painted = now
    this.from = from
    this.to = to
    this.range = range
    this.under = under
    this.over = over
    this.u.batch(() => {
      this.u.setScale('x', { min: from, max: to })
      this.u.setScale('y', { min: range.min, max: range.max })
      this.u.redraw(false, true)
    })
  }

  destroy(): void {
    this.u.destroy()
    this.tip.remove()
  }

  /** A grid label that would be cut by the edge is left out with its line. */
  private visibleLines(): number[] {
    const { range, height } = this
    const margin = ((range.max - range.min) / Math.max(1, height)) * 7
    return gridLines(range).filter((value) => value >= range.min + margin && value <= range.max - margin)
  }

  private draw(marks: (surface: Surface) => void): void {
    const { ctx } = this.u
    const ratio = uPlot.pxRatio
    const surface = this.surface(ctx)
    ctx.save()
    ctx.scale(ratio, ratio)
    ctx.beginPath()
    ctx.rect(surface.left, surface.top, surface.right - surface.left, surface.bottom - surface.top)
    ctx.clip()
    marks(surface)
    ctx.restore()
  }

  private surface(ctx: CanvasRenderingContext2D): Surface {
    const { u, range, from, to } = this
    const ratio = uPlot.pxRatio
    const left = u.bbox.left / ratio
    const top = u.bbox.top / ratio
    const width = u.bbox.width / ratio
    const height = u.bbox.height / ratio
    return {
      ctx,
      colours: colours(),
      x: (time) => left + ((time - from) / (to - from)) * width,
      y: (value) => top + ((range.max - value) / (range.max - range.min)) * height,
      left,
      top,
      right: left + width,
      bottom: top + height,
      from,
      to,
    }
  }
}

function decimals(step: number): number {
  return Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))
}
