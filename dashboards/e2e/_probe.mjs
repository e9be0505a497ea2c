import { launch, SIZES } from './browser.mjs'
import { readFileSync } from 'node:fs'
const url = readFileSync('/tmp/orrery/demo-dash/url','utf8').trim()
const browser = await launch()
const context = await browser.newContext({ viewport: SIZES[process.argv[2] ?? 'phone'] })
const page = await context.newPage()
const t = new URL(url); t.port = '5179'; t.pathname='/login'
page.on('request', r => { if (r.url().includes('window')) console.log(Math.round(performance.now()), r.url().split('/streams/')[1]) })
await page.goto(t.href)
await page.waitForTimeout(9000)
const out = await page.evaluate(async () => {
  const { rig } = await import('/src/state/rig.svelte.ts')
  const o = {}
  for (const s of rig.streams) { const d = rig.history.stream(s.stream)
    const series = d.series.values().next().value
    const gaps=[]; if (series) for (let i=1;i<series.length;i++) { const g=series.time(i)-series.time(i-1); if (g>3000) gaps.push([Math.round(rig.now-series.time(i)),Math.round(g)]) }
    o[s.stream] = { pieces: d.coverage.pieces.map(p=>[Math.round(rig.now-p.from), Math.round(rig.now-p.to), p.resolution]), n: series?.length, gaps: gaps.slice(-8), live: Math.round(rig.now-d.liveSince) } }
  return o
})
console.log(JSON.stringify(out, null, 0).replaceAll('},"','},\n"'))
await page.screenshot({ path: '/tmp/orrery/shots/probe.png' })
await browser.close()
