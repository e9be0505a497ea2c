/**
 * Checks the provenance log here, with nothing but its bytes: hashes every record, builds the tree over them as RFC 6962
 * says, and holds the root and the signature of the latest checkpoint against it. Loaded when it is asked for.
 */
import { getBytes } from '../api/http'

const LOG = '/provenance'
const BUNDLE = 256
/** More than this a browser need not hash. */
const MOST = 50_000

export interface Proof {
  size: number
  root: string
  matches: boolean
  /** null where this browser knows no Ed25519. */
  signed: boolean | null
}

export async function prove(key: string | undefined): Promise<Proof> {
  if (!globalThis.crypto?.subtle) throw new Error('This browser hashes only over HTTPS or on the machine itself.')
  const note = new TextDecoder().decode(await getBytes(`${LOG}/checkpoint`))
  const { text, size, root, signature } = parse(note)
  if (size > MOST) throw new Error(`${size} records are too many for the browser.`)
  const leaves: Uint8Array[] = []
  for (let first = 0; first < size; first += BUNDLE) {
    const width = Math.min(BUNDLE, size - first)
    const bundle = await getBytes(`${LOG}/tile/entries/${bundleName(first / BUNDLE)}${width < BUNDLE ? `.p/${width}` : ''}`)
    for (const record of records(bundle)) leaves.push(await hash([0], record))
  }
  const built = hex(await treeHash(leaves))
  return { size, root: built, matches: leaves.length === size && built === hex(root), signed: key ? await isSigned(text, signature, key) : null }
}

/** A C2SP checkpoint: origin, size and root, an empty line, then "— name signature". */
export function parse(note: string): { text: string; size: number; root: Uint8Array; signature: Uint8Array } {
  const end = note.indexOf('\n\n')
  const text = note.slice(0, end + 1)
  const [, size = '', root = ''] = text.split('\n')
  const line = note.slice(end + 2).split('\n').find((candidate) => candidate.startsWith('\u2014 '))
  if (end < 0 || !/^\d+$/.test(size) || !line) throw new Error('The checkpoint is not understood.')
  return { text, size: Number(size), root: bytes(root), signature: bytes(line.split(' ')[2] ?? '') }
}

/** "x001/234" for 1234, as tlog-tiles names them. */
export function bundleName(index: number): string {
  const parts = [String(index % 1000).padStart(3, '0')]
  for (let rest = Math.floor(index / 1000); rest > 0; rest = Math.floor(rest / 1000)) parts.unshift(`x${String(rest % 1000).padStart(3, '0')}`)
  return parts.join('/')
}

/** The records of an entry bundle: a length of 16 bits, then as many bytes. */
export function* records(bundle: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at + 2 <= bundle.length; ) {
    const length = ((bundle[at] as number) << 8) | (bundle[at + 1] as number)
    yield bundle.subarray(at + 2, at + 2 + length)
    at += 2 + length
  }
}

/** The Merkle tree hash over leaf hashes (RFC 6962, 2.1). */
export async function treeHash(leaves: Uint8Array[]): Promise<Uint8Array> {
  if (leaves.length === 0) return hash([], new Uint8Array())
  if (leaves.length === 1) return leaves[0] as Uint8Array
  let split = 1
  while (split * 2 < leaves.length) split *= 2
  const [left, right] = [await treeHash(leaves.slice(0, split)), await treeHash(leaves.slice(split))]
  const both = new Uint8Array(64)
  both.set(left)
  both.set(right, 32)
  return hash([1], both)
}

export async function hash(prefix: number[], content: Uint8Array): Promise<Uint8Array> {
  const whole = new Uint8Array(prefix.length + content.length)
  whole.set(prefix)
  whole.set(content, prefix.length)
  return new Uint8Array(await crypto.subtle.digest('SHA-256', whole))
}

/** `key` is "name+id+base64(1, public key)"; the signature begins with the four bytes of the id. */
async function isSigned(text: string, signature: Uint8Array, key: string): Promise<boolean | null> {
  const [, id = '', ...rest] = key.split('+')
  const [kind, ...material] = bytes(rest.join('+'))
  if (kind !== 1) return null
  try {
    const verifier = await crypto.subtle.importKey('raw', new Uint8Array(material), 'Ed25519', false, ['verify'])
    const known = hex(signature.subarray(0, 4)) === id
    return known && (await crypto.subtle.verify('Ed25519', verifier, signature.slice(4), new TextEncoder().encode(text)))
  } catch {
    return null
  }
}

function bytes(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
}

export function hex(content: Uint8Array): string {
  return [...content].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
