// The search runs in a worker, and browsers start none for pages opened from file://. There a hidden frame does its work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inner = this.frame.contentWindow;
      const answered = data => {
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      inner.postMessage = answered;
      const load = script => new Promise((done, failed) => {
        const element = inner.document.createElement("script");
        element.src = new URL(script, document.baseURI);
        element.onload = done;
        element.onerror = failed;
        inner.document.body.appendChild(element);
      });
      inner.importScripts = (...scripts) => scripts.reduce((before, script) => before.then(() => load(script)), Promise.resolve());
      this.ready = load(address);
    }
    postMessage(data) {
      this.ready.then(() => {
        const inner = this.frame.contentWindow;
        const message = new inner.MessageEvent("message", { data });
        inner.dispatchEvent(message);
      });
    }
    terminate() {
      this.frame.remove();
    }
  };
}
