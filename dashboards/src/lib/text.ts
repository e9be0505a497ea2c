/** Names and reasons as sentences begin. */

/** "the device took 40" → "The device took 40". */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** "line_pressure" → "Line pressure". */
export function words(name: string): string {
  return capital(name.replaceAll('_', ' '))
}
