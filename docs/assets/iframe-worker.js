// Search in a site opened from disk: browsers start no worker from file:// addresses.
// This runs the worker's script in a hidden frame instead, with the part of the interface that
// the theme's search uses.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside.importScripts = (...addresses) =>
        addresses.reduce((before, next) => before.then(() => this.load(next)), Promise.resolve())
      this.ready = this.load(address)
    }

    load(address) {
      return new Promise((done, fail) => {
        const script = this.inside.document.createElement("script")
        script.src = new URL(address, location.href).href
        script.onload = done
        script.onerror = fail
        this.inside.document.documentElement.append(script)
      })
    }

    postMessage(data) {
      this.ready.then(() =>
        this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })),
      )
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
