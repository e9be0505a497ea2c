// Glass to glass over time, beside how old samples are when they arrive in the browser, and the main thread's long
// tasks: LATENCY_S seconds after a warm-up of WARM_S. Orrery and the browser must share a clock, so one machine.
// With TRACE=FILE Chromium's own trace is written there (chrome://tracing, Perfetto).
import { writeFileSync } from 'node:fs'
import { launch, open } from './browser.mjs'
import { connect } from './server.mjs'

const { TRACE, LATENCY_S = '60', WARM_S = '0', SIZE = 'desktop' } = process.env
const CATEGORIES = 'devtools.timeline,v8,disabled-by-default-v8.cpu_profiler'

const { url, server } = await connect()
const browser = await launch()
try {
  const prepare = (page) =>
    page.addInitScript(() => {
      window.arrivals = []
      const receive = (event) => {
        const message = JSON.parse(event.data)
        const now = performance.timeOrigin + performance.now()
        if (message.type === 'samples' && !message.stream.startsWith('twin/')) for (const time of message.t) window.arrivals.push(now - time)
      }
      const Plain = WebSocket
      window.WebSocket = class extends Plain {
        constructor(...args) {
          super(...args)
          this.addEventListener('message', receive)
        }
      }
    })
  const page = await open(browser, url, { size: SIZE, prepare })
  await page.evaluate(() => {
    window.longTasks = []
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.longTasks.push({ at: entry.startTime, ms: entry.duration })
    }).observe({ type: 'longtask', buffered: true })
  })
  await page.waitForTimeout(Number(WARM_S) * 1000)
  if (TRACE) await browser.startTracing(page, { categories: CATEGORIES.split(',') })
  const cell = async () => (await page.locator('.glass').innerText()).replace(/\s+/g, ' ')
  for (let second = 0; second < Number(LATENCY_S); second += 5) {
    await page.waitForTimeout(5000)
    const long = await page.evaluate(() => window.longTasks.splice(0).map((task) => Math.round(task.ms)))
    const arrived = await page.evaluate(() => window.arrivals.splice(0).sort((a, b) => a - b))
    const at = (share) => Math.round(arrived[Math.min(arrived.length - 1, Math.floor(share * arrived.length))])
    console.log(`${String(Number(WARM_S) + second + 5).padStart(4)} s  ${await cell()}  arrived p50 ${at(0.5)} p99 ${at(0.99)} ms  long tasks, ms: ${long.join(' ') || 'none'}`)
  }
  if (TRACE) writeFileSync(TRACE, await browser.stopTracing())
} finally {
  await browser.close()
  await server?.stop()
}
