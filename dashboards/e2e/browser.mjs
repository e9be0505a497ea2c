// Chromium as the machine has it, and pages that report everything that goes wrong in them.
import { chromium } from 'playwright-core'

export const SIZES = { desktop: { width: 1440, height: 900 }, tablet: { width: 1024, height: 768 }, phone: { width: 390, height: 844 } }

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  })
}

/** A page on the demo; `page.complaints` collects errors and requests to any other host. */
export async function open(browser, url, { size = 'desktop', theme = 'light', scale = 1, motion = 'no-preference', prepare = async () => {} } = {}) {
  const context = await browser.newContext({
    viewport: SIZES[size],
    colorScheme: theme,
    deviceScaleFactor: scale,
    reducedMotion: motion,
    hasTouch: size === 'phone',
  })
  const page = await context.newPage()
  page.complaints = []
  await prepare(page)
  const { host } = new URL(url)
  page.on('pageerror', (error) => page.complaints.push(`error: ${error.message}`))
  page.on('console', (message) => {
    // While the server is down the browser itself reports every refused connection.
    if (message.type() === 'error' && !/ERR_CONNECTION|WebSocket connection|Failed to load resource/.test(message.text())) page.complaints.push(`console: ${message.text()}`)
  })
  page.on('request', (request) => {
    const to = new URL(request.url())
    if (to.protocol.startsWith('http') && to.host !== host) page.complaints.push(`asked another host: ${request.url()}`)
  })
  await page.goto(url)
  await page.locator('.page[data-link=open]').waitFor({ timeout: 30_000 })
  await page.locator('.row.pair .number').first().waitFor({ timeout: 30_000 })
  return page
}
