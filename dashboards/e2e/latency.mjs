// Glass to glass over time, and where the page's main thread spends it: LATENCY_S seconds after a warm-up of WARM_S.
// With TRACE=FILE Chromium's own trace is written there (chrome://tracing, Perfetto).
import { writeFileSync } from 'node:fs'
import { launch, open } from './browser.mjs'
import { connect } from './server.mjs'

const { TRACE, LATENCY_S = '60', WARM_S = '0', SIZE = 'desktop' } = process.env
const CATEGORIES = 'devtools.timeline,v8,disabled-by-default-v8.cpu_profiler'

const { url, server } = await connect()
const browser = await launch()
try {
  const page = await open(browser, url, { size: SIZE })
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
    console.log(`${String(Number(WARM_S) + second + 5).padStart(4)} s  ${await cell()}  long tasks, ms: ${long.join(' ') || 'none'}`)
  }
  if (TRACE) writeFileSync(TRACE, await browser.stopTracing())
} finally {
  await browser.close()
  await server?.stop()
}
