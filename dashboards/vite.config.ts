import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

// The page is served by the gateway from the same origin; `npm run dev` proxies to a running Orrery.
const target = process.env.ORRERY_URL ? new URL(process.env.ORRERY_URL).origin : 'http://127.0.0.1:7070'

/** Writes `.br` and `.gz` beside every text file: the gateway serves them as they are and never compresses itself. */
function precompress(): Plugin {
  let folder = 'dist'
  return {
    name: 'orrery-precompress',
    apply: 'build',
    configResolved(config) {
      folder = config.build.outDir
    },
    closeBundle() {
      for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg)$/.test(entry.name)) continue
        const path = join(entry.parentPath, entry.name)
        const bytes = readFileSync(path)
        writeFileSync(`${path}.br`, brotliCompressSync(bytes))
        writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }))
      }
    },
  }
}

export default defineConfig({
  plugins: [svelte(), precompress()],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { '/api': { target, ws: true }, '/login': target } },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
})
