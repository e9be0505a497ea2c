/**
 * In replay: the digest of what is shown, read from the store twice. Two equal reads are what "matches" means here.
 * Looking is no event: without `record=true` a digest leaves nothing in the provenance log.
 */
import { get } from '../api/http'
import { rig } from './rig.svelte'

const SETTLE_MS = 600
const MAX_WINDOW_MS = 15 * 60_000

export function watchDigest(): () => void {
  let timer = 0
  let asked = ''
  const check = () => {
    const { view, streams } = rig
    if (view.mode !== 'replay' || view.playing || rig.dragging || view.windowMs > MAX_WINDOW_MS) return
    const from = Math.floor(rig.from)
    const to = Math.floor(rig.playhead)
    const key = `${from}-${to}`
    if (key === asked || streams.length === 0) return
    asked = key
    const names = streams.map((s) => s.stream).filter((name) => !rig.twinStreams.has(name))
    void read(from, to, names, () => asked === key && rig.view.mode === 'replay')
  }
  let last = ''
  timer = window.setInterval(() => {
    const key = `${rig.view.at}:${rig.view.windowMs}`
    if (key === last) check()
    else if (rig.digest) rig.digest = null
    if (key !== last) asked = ''
    last = key
  }, SETTLE_MS)
  return () => clearInterval(timer)
}

interface Digest {
  digest: string
  revision: string
}

async function read(from: number, to: number, streams: string[], current: () => boolean): Promise<void> {
  const query = { from: new Date(from).toISOString(), to: new Date(to).toISOString(), streams: streams.join(','), format: 'digest' }
  try {
    const first = await get<Digest>('/replay', query)
    if (!current()) return
    const shown = { text: first.digest, revision: first.revision }
    rig.digest = { ...shown, agrees: null }
    const second = await get<Digest>('/replay', { ...query, revision: first.revision })
    if (current()) rig.digest = { ...shown, agrees: first.digest === second.digest }
  } catch {
    if (current()) rig.digest = null
  }
}
