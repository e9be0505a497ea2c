// First load: what a browser fetches before the page stands, compressed as the gateway serves it, fonts included.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export const BUDGET_BYTES = 150 * 1024
const DIST = fileURLToPath(new URL('../dist', import.meta.url))

/** Sizes by file of everything index.html asks for, and what that asks for at once. */
export function firstLoad() {
  const index = join(DIST, 'index.html')
  if (!existsSync(index)) throw new Error(`${index} is not there: run npm run build first`)
  const html = readFileSync(index, 'utf8')
  const linked = [...html.matchAll(/(?:src|href)="\/([^"]+)"/g)].map((match) => match[1])
  const styles = linked.filter((name) => name.endsWith('.css')).map((name) => readFileSync(join(DIST, name), 'utf8'))
  const fonts = readdirSync(join(DIST, 'assets')).filter((name) => name.endsWith('.woff2') && styles.some((css) => css.includes(name)))
  const files = ['index.html', ...linked, ...fonts.map((name) => `assets/${name}`)]
  return files.map((name) => ({ name, bytes: served(join(DIST, name)) }))
}

function served(path) {
  const packed = `${path}.br`
  return statSync(existsSync(packed) ? packed : path).size
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const files = firstLoad()
  const total = files.reduce((sum, file) => sum + file.bytes, 0)
  for (const { name, bytes } of files) console.log(`${String(bytes).padStart(8)}  ${name}`)
  console.log(`${String(total).padStart(8)}  first load; the budget is ${BUDGET_BYTES}`)
  if (total > BUDGET_BYTES) {
    console.error(`The first load is ${total - BUDGET_BYTES} bytes over its budget: load what is not needed at once later.`)
    process.exit(1)
  }
}
