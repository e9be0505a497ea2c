/** Requests to the gateway this page came from. A refusal arrives as RFC 9457 and leaves as one readable sentence. */

const BASE = '/api/v1'
/** An answer that has not come whole after this long is given up: a request that hangs must not keep others waiting. */
const TIMEOUT_MS = 15_000

/** `status` is 0 where no answer came: what was asked for may have been done or not. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

export function get<T>(path: string, query: Record<string, string | number> = {}): Promise<T> {
  return request('GET', withQuery(path, query), (answer) => answer.json() as Promise<T>)
}

export async function getBytes(path: string): Promise<Uint8Array> {
  return new Uint8Array(await request('GET', path, (answer) => answer.arrayBuffer()))
}

export function post<T>(path: string, body: unknown): Promise<T> {
  return request('POST', path, async (answer) => (answer.status === 204 ? {} : await answer.json()) as T, body)
}

function withQuery(path: string, query: Record<string, string | number>): string {
  const text = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)])).toString()
  return text ? `${path}?${text}` : path
}

async function request<T>(method: string, path: string, read: (answer: Response) => Promise<T>, body?: unknown): Promise<T> {
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const init: RequestInit = { method, credentials: 'same-origin', headers: { accept: 'application/json' }, signal }
  if (body !== undefined) {
    init.body = JSON.stringify(body)
    init.headers = { accept: 'application/json', 'content-type': 'application/json' }
  }
  try {
    const answer = await fetch(BASE + path, init)
    if (!answer.ok) throw new ApiError(answer.status, await explain(answer))
    return await read(answer)
  } catch (cause) {
    if (signal.aborted) throw new ApiError(0, `Orrery did not answer within ${TIMEOUT_MS / 1000} s.`)
    // What fetch and a body that breaks off throw.
    if (cause instanceof TypeError) throw new ApiError(0, 'Orrery does not answer. Check that it runs.')
    throw cause
  }
}

async function explain(answer: Response): Promise<string> {
  try {
    const problem = (await answer.json()) as { title?: string; detail?: string }
    const text = problem.detail ?? problem.title
    if (text) return text
  } catch {
    // Not a problem document; the status has to do.
  }
  return `Orrery answered ${answer.status}.`
}
