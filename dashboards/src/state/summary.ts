/** A plot in one sentence, for those who do not see it. */
import { decimalsByMagnitude, decimalsFor, fixed, signed } from '../lib/number'
import { type Row, shortName } from '../lib/rows'
import { duration } from '../lib/time'
import type { History } from './history'
import { reading, twinReading } from './readout'

export function summary(history: History, row: Row, at: number): string {
  if (row.kind === 'commands') {
    const values = row.channels.map((ref) => {
      const { value } = reading(history, ref, at)
      return `${shortName(ref.channel.name)} ${value === null ? 'no data' : `${fixed(value, 0)} ${row.unit}`}`
    })
    const { limit } = row
    return `${row.title}, ${row.subtitle}: ${values.join(', ')}${limit === null ? '' : `, limit ${limit} ${row.unit}`}.`
  }
  const ref = row.kind === 'pair' ? row.measured : row.channel
  const now = reading(history, ref, at)
  const name = `${row.title}, ${row.subtitle}`
  if (now.value === null) return `${name}: no data.`
  const decimals = decimalsFor(ref.half) ?? decimalsByMagnitude(now.value)
  const parts = [`${name}: ${fixed(now.value, decimals)} ${row.unit}`]
  if (now.stale) parts.push(`stale ${duration(now.age)}`)
  if (row.kind === 'pair') {
    const twin = twinReading(history, row, at, 0, null)
    if (twin.twin !== null) parts.push(`twin ${fixed(twin.twin, decimals)} ${row.unit}`)
    if (twin.residual !== null) {
      parts.push(`residual ${signed(twin.residual, 1)} ${row.unit}`)
      parts.push(twin.outsideFor > 0 ? `outside the 95 % band for ${duration(twin.outsideFor)}` : 'inside the 95 % band')
    }
  }
  return `${parts.join(', ')}.`
}
