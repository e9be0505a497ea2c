import { describe, expect, it } from 'vitest'
import { bundleName, hash, hex, parse, records, treeHash } from './proof'

const bytes = (text: string) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16))

describe('the proof of the log', () => {
  // Leaves and roots as the reference implementation of RFC 6962 publishes them.
  const LEAVES = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f']
  const ROOTS = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  ]

  it('builds the trees of RFC 6962', async () => {
    const hashed = await Promise.all(LEAVES.map((leaf) => hash([0], bytes(leaf))))
    for (const [k, root] of ROOTS.entries()) expect(hex(await treeHash(hashed.slice(0, k + 1)))).toBe(root)
  })

  it('reads a checkpoint and a bundle', () => {
    const note = 'orrery.local/provenance\n2\nAAEC\n\n\u2014 orrery.local/provenance AQID\n'
    const read = parse(note)
    expect([read.size, [...read.root], [...read.signature]]).toEqual([2, [0, 1, 2], [1, 2, 3]])
    expect(note.startsWith(read.text) && read.text.endsWith('AAEC\n')).toBe(true)
    expect([...records(bytes('0002aabb000000 01cc'.replace(' ', '')))].map(hex)).toEqual(['aabb', '', 'cc'])
    expect(() => parse('nonsense')).toThrow('not understood')
  })

  it('names bundles as tiles are named', () => expect([0, 7, 1234, 1_234_067].map(bundleName)).toEqual(['000', '007', 'x001/234', 'x001/x234/067']))
})
