import { describe, expect, it } from 'vitest'
import { count, decimalsByMagnitude, decimalsFor, fixed, plusMinus, signed, unit } from './number'

describe('decimals', () => {
  it.each([
    [0.2, 1],
    [0.05, 2],
    [2, 0],
    [35, 0],
    [0.0999999, 1],
    [1, 0],
  ])('an uncertainty of %d leaves %d', (uncertainty, decimals) => expect(decimalsFor(uncertainty)).toBe(decimals))

  it('says so when no uncertainty was stated', () => {
    expect(decimalsFor(null)).toBeNull()
    expect(decimalsFor(0)).toBeNull()
    expect(decimalsFor(NaN)).toBeNull()
  })

  it('falls back to three digits', () => {
    expect([decimalsByMagnitude(101.3), decimalsByMagnitude(43.4), decimalsByMagnitude(3.9), decimalsByMagnitude(0.05)]).toEqual([0, 1, 2, 4])
  })
})

describe('signs', () => {
  it('uses a true minus and no negative zero', () => {
    expect(fixed(-3.14, 1)).toBe('−3.1')
    expect(fixed(-0.04, 1)).toBe('0.0')
    expect(signed(-0.04, 1)).toBe('+0.0')
    expect(signed(0.7, 1)).toBe('+0.7')
    expect(plusMinus(0.2)).toBe('±0.2')
  })
})

describe('units and counts', () => {
  it('prints UCUM as people do and leaves what it does not know', () => {
    expect(unit('Cel')).toBe('°C')
    expect(unit('%')).toBe('%')
    expect(unit('W')).toBe('W')
    expect(unit('[foo]')).toBe('[foo]')
  })
  it('groups from five digits on', () => {
    expect(count(1240)).toBe('1240')
    expect(count('18311')).toBe('18\u202f311')
  })
})
