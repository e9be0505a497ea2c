// Runs before the first paint, so that a chosen theme never flashes the other one.
;(function () {
  var chosen = null
  try {
    chosen = localStorage.getItem('orrery.theme')
  } catch (_) {
    // Storage is refused: follow the system.
  }
  var dark = chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  document.documentElement.dataset.theme = dark ? 'dark' : 'light'
})()
