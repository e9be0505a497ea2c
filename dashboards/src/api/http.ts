/** Requests to the gateway this page came from. A refusal arrives as RFC 9457 and leaves as one readable sentence. */

const BASE = '/api/v1'

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

export async function get<T>(path: string, query: Record<string, string | number> = {}, signal?: AbortSignal): Promise<T> {
  return (await request('GET', withQuery(path, query), undefined, signal)).json() as Promise<T>
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const response = await request('POST', path, body, signal)
  return (response.status === 204 ? {} : await response.json()) as T
}

function withQuery(path: string, query: Record<string, string | number>): string {
  const text = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)])).toString()
  return text ? `${path}?${text}` : path
}

async function request(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, credentials: 'same-origin', headers: { accept: 'application/json' } }
  if (signal) init.signal = signal
  if (body !== undefined) {
    init.body = JSON.stringify(body)
    init.headers = { accept: 'application/json', 'content-type': 'application/json' }
  }
  let response: Response
  try {
    response = await fetch(BASE + path, init)
  } catch (cause) {
    if (signal?.aborted) throw cause
    throw new ApiError(0, 'Orrery does not answer. Check that it runs.')
  }
  if (!response.ok) throw new ApiError(response.status, await explain(response))
  return response
}

async function explain(response: Response): Promise<string> {
  try {
    const problem = (await response.json()) as { title?: string; detail?: string }
    const text = problem.detail ?? problem.title
    if (text) return text
  } catch {
    // Not a problem document; the status has to do.
  }
  return `Orrery answered ${response.status}.`
}
