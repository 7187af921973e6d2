/** The moment of the clip that everything shows: the player's, or its own where the browser cannot play the clip. */

export class Playhead {
  /** @param {number} duration seconds */
  constructor(duration) {
    this.duration = duration;
    /** @type {HTMLMediaElement | null} */
    this.media = null;
    this.own = 0;
    /** @type {Set<(time_s: number) => void>} */
    this.listeners = new Set();
    this.frame = 0;
  }

  get time() {
    return this.media ? this.media.currentTime : this.own;
  }

  get playing() {
    return this.media !== null && !this.media.paused && !this.media.ended;
  }

  /** @param {number} time_s */
  seek(time_s) {
    const bounded = Math.min(Math.max(time_s, 0), this.duration);
    this.own = bounded;
    if (this.media) this.media.currentTime = bounded;
    this.tell();
  }

  toggle() {
    if (!this.media) return;
    if (this.playing) this.media.pause();
    else this.media.play().catch(() => {}); // a browser may refuse; the button stays as it is
  }

  /** Follow a player; null goes on from where it was. @param {HTMLMediaElement | null} media */
  follow(media) {
    if (!media && this.media) this.own = this.media.currentTime;
    if (media && this.own) media.currentTime = this.own;
    this.media = media;
    const run = () => {
      this.tell();
      cancelAnimationFrame(this.frame);
      if (this.playing && media?.isConnected) this.frame = requestAnimationFrame(run);
    };
    for (const event of ["play", "pause", "seeked", "timeupdate", "loadeddata"]) media?.addEventListener(event, run);
    this.tell();
  }

  /** @param {(time_s: number) => void} listener */
  on(listener) {
    this.listeners.add(listener);
    listener(this.time);
  }

  tell() {
    for (const listener of this.listeners) listener(this.time);
  }
}
