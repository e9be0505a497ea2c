import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

// The page is served by the gateway from the same origin; `npm run dev` proxies to a running Orrery.
const target = process.env.ORRERY_URL ? new URL(process.env.ORRERY_URL).origin : 'http://127.0.0.1:7070'

export default defineConfig({
  plugins: [svelte()],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { '/api': { target, ws: true }, '/login': target } },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
})
