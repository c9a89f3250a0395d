/* Search in pages that were opened from a folder.
 *
 * Browsers start no worker from a file. The search is one, so it runs in a hidden frame instead,
 * which has the same few functions. The pages of a web server do not need this.
 */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.onmessage = null
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.documentElement.append(this.frame)
      const inside = (this.inside = this.frame.contentWindow)
      inside.postMessage = (data) => this.receive(data)
      inside.importScripts = (...urls) =>
        urls.reduce((before, one) => before.then(() => this.load(one, url)), Promise.resolve())
      this.load(url, location.href).then(() => {
        this.isReady = true
        this.waiting.splice(0).forEach((data) => this.postMessage(data))
      })
    }

    load(url, base) {
      return new Promise((loaded, failed) => {
        const script = this.inside.document.createElement("script")
        script.src = new URL(url, base).href
        script.onload = loaded
        script.onerror = failed
        this.inside.document.documentElement.append(script)
      })
    }

    receive(data) {
      const message = new MessageEvent("message", { data })
      this.dispatchEvent(message)
      if (this.onmessage) this.onmessage(message)
    }

    postMessage(data) {
      if (!this.isReady) this.waiting.push(data)
      else this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
