// The page in a real Chromium against the real binary.
import { strict as assert } from 'node:assert'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { launch, open } from './browser.mjs'
import { BUDGET_BYTES, firstLoad } from './budget.mjs'
import { connect } from './server.mjs'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const only = process.argv[2]
let failed = 0

async function check(name, run) {
  if (only && !name.includes(only)) return
  const started = Date.now()
  try {
    await run()
    console.log(`ok    ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
  } catch (error) {
    failed++
    console.log(`FAIL  ${name}\n      ${String(error.message ?? error).replaceAll('\n', '\n      ')}`)
  }
}

/** Waits until `probe` holds; the message says what it last saw. */
async function until(what, probe, timeout = 15_000) {
  const deadline = Date.now() + timeout
  for (let last; ; ) {
    last = await probe().catch((error) => error.message)
    if (last === true) return
    if (Date.now() > deadline) throw new Error(`waited ${timeout / 1000} s for: ${what}; saw ${JSON.stringify(last)}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

const text = async (page, selector) => (await page.locator(selector).first().innerText()).replace(/\s+/g, ' ').trim()
const mode = (page) => page.locator('.page').getAttribute('data-mode')

async function axe(page, where) {
  await page.evaluate(AXE)
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
  const found = violations.map((v) => `${v.id} (${v.impact}): ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.failureSummary?.split('\n').at(-1)?.trim()}`).join('; ')}`)
  assert.deepEqual(found, [], `axe ${where}`)
}

/** Nothing wider than the window, in the page or in any part of it that should not scroll sideways. */
async function noSidewaysScroll(page, where) {
  const wide = await page.evaluate(() => {
    const out = []
    const root = document.scrollingElement
    if (root.scrollWidth > root.clientWidth) out.push('page')
    for (const node of document.querySelectorAll('.top, .side, .scroll, .timeline, .tabs')) {
      const box = node.getBoundingClientRect()
      if (box.width > 0 && (box.right > innerWidth + 0.5 || node.scrollWidth > node.clientWidth + 1)) out.push(node.className)
    }
    return out
  })
  assert.deepEqual(wide, [], where)
}

const hash = (page, row) =>
  page.evaluate((id) => {
    const canvas = document.querySelector(`[data-row="${id}"] canvas`)
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    let sum = 0
    for (let k = 0; k < data.length; k += 1) sum = (sum * 31 + data[k]) | 0
    return sum
  }, row)

const { url, server } = await connect()
const browser = await launch()
try {
  const page = await open(browser, url)

  await check('shows every instrument, its twin and its clock', async () => {
    await until('six quantities', async () => (await page.locator('.row').count()) >= 6 || page.locator('.row').count(), 30_000)
    for (const name of ['T1', 'T2', 'Heaters', 'Supply', 'Chamber', 'Room']) {
      assert.ok((await page.locator('.row h2 b', { hasText: new RegExp(`^${name}$`) }).count()) > 0, `no row ${name}`)
    }
    await until('a twin value', async () => /Twin −?\d+\.\d °C ±/.test(await text(page, '.row.pair')) || text(page, '.row.pair'), 30_000)
    await until('a residual', async () => /Residual [+−]\d/.test(await text(page, '.row.pair')) || text(page, '.row.pair'), 30_000)
    await until('a forecast', async () => /In 90 s/.test(await text(page, '.row.pair')) || text(page, '.row.pair'), 30_000)
    const devices = page.locator('section[aria-label=Devices]')
    await until('four devices with clocks', async () => ((await devices.innerText()).match(/±/g)?.length ?? 0) >= 4 || devices.innerText(), 40_000)
    for (const device of ['tclab-01', 'chamber-ctl', 'power-meter', 'room-sensor']) assert.ok((await devices.innerText()).includes(device), device)
    await until('glass to glass', async () => /\d ms/.test(await text(page, '.glass')) || text(page, '.glass'))
    assert.match(await text(page, '.state'), /\d\d:\d\d:\d\d\.\d UTC ±\d.*Live/)
  })

  await check('moves with the data and only with it', async () => {
    const id = await page.locator('.row.pair [data-row]').first().getAttribute('data-row')
    const before = await hash(page, id)
    await until('another picture', async () => (await hash(page, id)) !== before)
    await page.keyboard.press('Space')
    assert.equal(await mode(page), 'paused')
    await page.waitForTimeout(400)
    const held = await hash(page, id)
    await page.waitForTimeout(1500)
    assert.equal(await hash(page, id), held, 'a paused plot moved')
    await until('samples since', async () => /Paused, [1-9]\d* samples since/.test(await text(page, '.state')) || text(page, '.state'))
    await page.keyboard.press('Space')
    assert.equal(await mode(page), 'live')
  })

  await check('says each plot in a sentence and gives its table', async () => {
    const plot = page.locator('.row.pair [data-row]').first()
    assert.match(await plot.getAttribute('aria-label'), /T1, .*: \d+\.\d °C, twin \d+\.\d °C, residual [+−]\d/)
    await plot.focus()
    await page.keyboard.press('t')
    await until('a table of samples', async () => (await page.locator('section.table tbody tr').count()) > 20)
    await axe(page, 'with a table')
    await page.keyboard.press('Escape')
    await page.keyboard.press('?')
    assert.match(await text(page, 'section.keys'), /Space pause/)
    await page.keyboard.press('Escape')
    assert.equal(await page.locator('section.keys').count(), 0)
  })

  await check('scrubs into the past and returns', async () => {
    await page.keyboard.press('Shift+ArrowLeft')
    assert.equal(await mode(page), 'replay')
    assert.match(await text(page, '.state'), /UTC, \d+ s ago.*Replay/)
    assert.match(await text(page, '.side'), /Rig now, \d\d:\d\d:\d\d\. Charts show the past\./)
    assert.ok(await page.getByRole('button', { name: 'Q1 up' }).isDisabled(), 'commands are not locked in replay')
    await until('a digest that matches', async () => /Replay [0-9a-f]{4}….. matches/.test(await text(page, '.proof')) || text(page, '.proof'))
    await axe(page, 'in replay')
    const at = await page.getByRole('slider').getAttribute('aria-valuetext')
    assert.match(at, /^\d\d:\d\d:\d\d UTC, replay$/)
    await page.keyboard.press('End')
    assert.equal(await mode(page), 'live')

    const well = await page.getByRole('slider').boundingBox()
    await page.mouse.move(well.x + well.width - 2, well.y + 60)
    await page.mouse.down()
    await page.mouse.move(well.x + well.width - 30, well.y + 60, { steps: 5 })
    await page.mouse.up()
    assert.equal(await mode(page), 'replay', 'a drag of the timeline')
    await page.mouse.move(well.x + well.width - 30, well.y + 60)
    await page.mouse.down()
    await page.mouse.move(well.x + well.width + 5, well.y + 60, { steps: 5 })
    await page.mouse.up()
    assert.equal(await mode(page), 'live', 'the right end is now')
  })

  await check('zooms by dragging across a plot', async () => {
    const box = await page.locator('.row.pair [data-row]').first().boundingBox()
    const shown = () => text(page, '.about')
    const before = await shown()
    assert.match(before, /10 min shown/)
    await page.mouse.move(box.x + box.width * 0.6, box.y + 60)
    await page.mouse.down()
    await page.mouse.move(box.x + box.width * 0.8, box.y + 60, { steps: 4 })
    await page.mouse.up()
    await until('a shorter window', async () => !/10 min shown/.test(await shown()) || shown())
    await page.keyboard.press('0')
    await page.keyboard.press('l')
    await until('ten minutes again', async () => /10 min shown/.test(await shown()) || shown())
    await page.mouse.move(5, 400)
  })

  await check('stages a heater, shows the twin’s answer, reviews, sends and sees it applied', async () => {
    await page.getByRole('button', { name: 'Take control' }).click()
    await until('the lease', async () => /you hold control, \d+ min left/.test(await text(page, '.heaters')) || text(page, '.heaters'))
    const field = page.getByLabel(/^Q1 set-point in/)
    const target = (await field.inputValue()) === '58' ? '52' : '58'
    await field.fill(target)
    await field.press('Enter')
    await until('the twin’s answer', async () => /Staged, not sent\. Twin: .*°C in 90 s/.test(await text(page, '.heaters')) || text(page, '.heaters'))
    await page.getByRole('button', { name: 'Review change' }).click()
    await until('focus on the review', async () => (await page.evaluate(() => document.activeElement?.textContent)) === 'Review')
    assert.match(await text(page, '.heaters'), new RegExp(`→ ${target} %.*spare`))
    await axe(page, 'in review')
    await page.getByRole('button', { name: `Send ${target} %` }).click()
    await until('applied', async () => new RegExp(`Applied: Q1 ${target} %`).test(await text(page, '.heaters')) || text(page, '.heaters'), 20_000)
    await until('the read-back', async () => (await text(page, '.channel .reads')).startsWith(target) || text(page, '.channel .reads'), 10_000)
    await page.getByRole('button', { name: 'Heaters off' }).click()
    await until('heaters off', async () => (await text(page, '.channel .reads')) === '0 %' || text(page, '.channel .reads'), 20_000)
  })

  await check('never calls applied what the device refused', async () => {
    const heaters = () => text(page, '.heaters')
    const answer = (body) => (route) => route.fulfill({ json: body })
    await page.route('**/control/send', answer({ commands: [{ id: 'made-up', status: 'accepted', value: 30 }] }))
    await page.route('**/control/commands/made-up', answer({ id: 'made-up', status: 'refused', value: 40, reason: 'the device took 40 instead of 30' }))
    const field = page.getByLabel(/^Q1 set-point in/)
    await field.fill('30')
    await field.press('Enter')
    await page.getByRole('button', { name: 'Review change' }).click()
    await page.getByRole('button', { name: 'Send 30 %' }).click()
    await until('the refusal', async () => /Refused: Q1 30 %\. The device took 40 instead of 30/.test(await heaters()) || heaters())
    assert.doesNotMatch(await heaters(), /Applied/)
    await axe(page, 'with a refused command')
    await page.unrouteAll()
  })

  await check('refuses in words what may not be sent', async () => {
    const heaters = () => text(page, '.heaters')
    const field = page.getByLabel(/^Q1 set-point in/)
    await field.fill('95')
    await field.press('Enter')
    assert.match(await heaters(), /Not staged\. Q1 takes 0 to 80 %, not 95\./)
    assert.equal(await field.getAttribute('aria-invalid'), 'true')
    await axe(page, 'with a refused field')
    await field.fill('warm')
    await field.press('Enter')
    assert.match(await heaters(), /“warm” is no number/)
    for (const name of ['Q1', 'Q2']) {
      const each = page.getByLabel(new RegExp(`^${name} set-point in`))
      await each.fill('80')
      await each.press('Enter')
    }
    await page.getByRole('button', { name: 'Review change' }).click()
    await until('not allowed, and why', async () => /An interlock would not hold: .*60 °C.*Nothing was sent\./.test(await heaters()) || heaters())
    assert.ok(await page.getByRole('button', { name: 'Not allowed' }).isDisabled())
    await axe(page, 'with a refused change')
    await page.keyboard.press('Escape')
    await until('discarded', async () => !/would not hold/.test(await heaters()) || heaters())
  })

  await check('shows what is proved and proves it again', async () => {
    await page.locator('button.proof').click()
    const proof = () => text(page, 'section.proved')
    await until('the log', async () => /Root hash [0-9a-f ]{64,}.*Complete to \d\d:\d\d:\d\d UTC/.test(await proof()) || proof())
    await page.getByRole('button', { name: 'Verify here' }).click()
    await until('verified', async () => /\d+ records hashed here give the root of the checkpoint, and its signature holds/.test(await proof()) || proof())
    assert.match(await proof(), /orrery provenance verify/)
    assert.ok(await page.getByRole('button', { name: 'Heaters off' }).isVisible(), 'the proof hides Heaters off')
    await axe(page, 'with the proof')
    await page.keyboard.press('Escape')
    assert.equal(await page.locator('section.proved').count(), 0)
  })

  await check('says of a device what it counted, and of its clock how sure it is', async () => {
    await page.locator('section[aria-label=Devices] button', { hasText: 'power-meter' }).click()
    const list = () => text(page, '.more')
    assert.match(await list(), /Drift [+−][\d.]+ ±[\d.]+ ppm.*Clock read by .*Readings taken \d+.*Envelopes accepted \d+/)
    await axe(page, 'with a device open')
    await page.locator('section[aria-label=Devices] button', { hasText: 'power-meter' }).click()
  })

  await check('tells devices apart that are silent, disconnected, stale or ended', async () => {
    const states = {
      'tclab-01': { state: 'silent', agent_counters: { connected: '0', disconnects: '1' } },
      'power-meter': { state: 'silent' },
      'chamber-ctl': { state: 'stale' },
      'room-sensor': { state: 'ended', last_sample: null, clock: null, rate: { observed_hz: null, nominal_hz: 0.2 } },
    }
    const prepare = (other) =>
      other.routeWebSocket(/\/api\/v1\/live/, (socket) => {
        const upstream = socket.connectToServer()
        upstream.onMessage((message) => {
          const parsed = JSON.parse(message)
          if (parsed.type === 'devices') parsed.devices = parsed.devices.map((device) => ({ ...device, ...states[device.device_id] }))
          socket.send(JSON.stringify(parsed))
        })
      })
    const other = await open(browser, url, { prepare })
    try {
      const devices = () => other.locator('section[aria-label=Devices]').innerText().then((all) => all.replace(/\s+/g, ' '))
      await until('disconnected', async () => /disconnected no sample for .*, its agent cannot reach it/.test(await devices()) || devices())
      assert.match(await devices(), /silent no sample for .*, its agent answers/)
      assert.match(await devices(), /stale no sample for/)
      assert.match(await devices(), /ended no sample yet/)
      await axe(other, 'with devices gone')
      assert.deepEqual(other.complaints, [])
    } finally {
      await other.context().close()
    }
  })

  await check('falls back to server-sent events', async () => {
    const prepare = (other) =>
      other.addInitScript(() => {
        window.WebSocket = class {
          constructor() {
            throw new Error('no WebSocket here')
          }
        }
      })
    const other = await open(browser, url, { prepare })
    try {
      await until('the transport named', async () => /Live, event stream/.test(await text(other, '.state')) || text(other, '.state'))
      const id = await other.locator('.row.pair [data-row]').first().getAttribute('data-row')
      const before = await hash(other, id)
      await until('another picture', async () => (await hash(other, id)) !== before)
      await until('glass to glass', async () => /\d ms/.test(await text(other, '.glass')) || text(other, '.glass'))
      await until('devices, forecast and proof', async () => /In 90 s/.test(await text(other, '.row.pair')) && /Proved/.test(await text(other, '.proof')))
      await other.waitForTimeout(4_000)
      assert.equal(await other.locator('.page').getAttribute('data-link'), 'open')
      assert.doesNotMatch(await other.locator('.row.pair .plots').first().getAttribute('aria-label'), /stale/)
      assert.deepEqual(other.complaints, [])
    } finally {
      await other.context().close()
    }
  })

  await check('reaches everything by Tab alone', async () => {
    const missed = await page.evaluate(() => {
      const able = 'button:not(:disabled), input:not(:disabled), select, a[href], [tabindex="0"]'
      window.wanted = [...document.querySelectorAll(able)].filter((node) => node.checkVisibility() && node.getBoundingClientRect().width > 0)
      document.activeElement?.blur()
      return window.wanted.length
    })
    for (let k = 0; k < missed + 3; k++) {
      await page.keyboard.press('Tab')
      await page.evaluate(() => (window.wanted = window.wanted.filter((node) => node !== document.activeElement && node.isConnected)))
    }
    assert.deepEqual(await page.evaluate(() => window.wanted.map((node) => node.outerHTML.slice(0, 100))), [])
  })

  for (const theme of ['light', 'dark']) {
    for (const size of ['desktop', 'tablet', 'phone']) {
      await check(`is accessible and fits, ${size}, ${theme}`, async () => {
        const other = await open(browser, url, { size, theme, motion: 'reduce' })
        try {
          await other.waitForTimeout(500)
          await axe(other, `${size} ${theme}`)
          await noSidewaysScroll(other, `${size} ${theme}`)
          if (size === 'phone') {
            for (const tab of ['Devices', 'Heaters', 'Table']) {
              await other.getByRole('button', { name: tab, exact: true }).click()
              await axe(other, `phone ${tab} ${theme}`)
              await noSidewaysScroll(other, `phone ${tab}`)
            }
            await until('a table', async () => (await other.locator('section.table tbody tr').count()) > 20)
            await other.getByLabel('Of').selectOption({ label: 'Supply power' })
            await until('another table', async () => /Supply/.test(await text(other, 'section.table h2')))
            await other.getByRole('button', { name: 'Close the table' }).click()
            assert.ok(await other.locator('.charts').isVisible(), 'back at the charts')
            await other.locator('button.proof').click()
            await until('the proof', async () => (await other.locator('section.proved').count()) === 1)
            await axe(other, `phone proof ${theme}`)
            await other.locator('button.proof').click()
          }
          assert.deepEqual(await other.evaluate(() => document.getAnimations().map((move) => move.animationName ?? move.transitionProperty)), [], 'moves in spite of reduced motion')
          assert.deepEqual(other.complaints, [])
        } finally {
          await other.context().close()
        }
      })
    }
  }

  await check('fits at 200 % zoom and at every width between', async () => {
    for (const [width, height] of [[720, 450], [721, 700], [800, 700], [959, 700], [960, 700], [1100, 800], [1279, 800], [1920, 1080]]) {
      await page.setViewportSize({ width, height })
      await page.waitForTimeout(200)
      await noSidewaysScroll(page, `${width} px`)
    }
    await page.setViewportSize({ width: 900, height: 700 })
    await page.getByRole('button', { name: 'Rig', exact: true }).click()
    assert.ok(await page.getByRole('button', { name: 'Heaters off' }).isVisible(), 'the drawer')
    await page.keyboard.press('Escape')
    await page.setViewportSize({ width: 1440, height: 900 })
  })

  if (server) {
    await check('says the link is lost and finds back after a kill', async () => {
      await server.kill()
      await until('link lost', async () => /Link lost/.test(await text(page, '.state')) || text(page, '.state'), 5_000)
      assert.match(await text(page, '.state'), /retrying in|trying now/)
      assert.match(await text(page, '.heaters'), /locked, link lost/)
      await axe(page, 'with the link lost')
      await page.waitForTimeout(2_500)
      assert.match(await page.locator('.row.pair .plots').first().getAttribute('aria-label'), /stale/)
      await server.start()
      await until('live again', async () => /Live/.test(await text(page, '.state')) || text(page, '.state'), 30_000)
      const said = () => page.locator('[role=status]').allInnerTexts().then((all) => all.join(' '))
      await until('what the outage cost', async () => /nothing lost|no samples for/.test(await said()) || said(), 30_000)
      await until('fresh samples', async () => !/stale/.test(await page.locator('.row.pair .plots').first().getAttribute('aria-label')), 30_000)
    })
  }

  await check('keeps its first load within the budget', async () => {
    const total = firstLoad().reduce((sum, file) => sum + file.bytes, 0)
    assert.ok(total <= BUDGET_BYTES, `${total} bytes, ${BUDGET_BYTES} allowed`)
  })

  await check('complains about nothing and asks no other host', async () => assert.deepEqual(page.complaints, []))
} finally {
  await browser.close()
  await server?.stop()
}
if (failed > 0) {
  console.error(`${failed} failed${server ? `; the server's last words:\n${server.log.slice(-3000)}` : ''}`)
  process.exit(1)
}
