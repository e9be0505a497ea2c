// Pictures of the page for the README and for eyes: light, dark, phone and replay, into SCREENSHOTS (or ./screenshots).
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { launch, open } from './browser.mjs'
import { connect } from './server.mjs'

const folder = resolve(process.env.SCREENSHOTS ?? 'screenshots')
/** How long the demo runs first, so that the plots have something to show. */
const settleMs = Number(process.env.SETTLE_S ?? 60) * 1000
/** The latency of a page that has just opened is not that of one in use: wait until its minute has forgotten the start. */
const lookMs = Number(process.env.LOOK_S ?? 65) * 1000

const { url, server } = await connect()
const browser = await launch()
mkdirSync(folder, { recursive: true })
try {
  if (server) await new Promise((done) => setTimeout(done, settleMs))
  const shots = [
    { name: 'light' },
    { name: 'dark', theme: 'dark' },
    { name: 'tablet', size: 'tablet' },
    { name: 'phone', size: 'phone', scale: 2 },
    { name: 'replay', replay: true },
  ]
  for (const { name, replay, ...options } of shots) {
    const page = await open(browser, url, options)
    await page.waitForTimeout(lookMs)
    if (replay) {
      await page.keyboard.press('Shift+ArrowLeft')
      await page.keyboard.press('Shift+ArrowLeft')
      await page.waitForTimeout(4000)
    }
    const path = join(folder, `${name}.png`)
    await page.screenshot({ path })
    console.log(path)
    await page.context().close()
  }
} finally {
  await browser.close()
  await server?.stop()
}
