import { mount } from 'svelte'
import './app.css'
import 'uplot/dist/uPlot.min.css'
import App from './App.svelte'

const target = document.getElementById('app')
if (!target) throw new Error('index.html has no #app to mount the page on')
export default mount(App, { target })
