'use strict';
// Standard output and error are one pipe, which Node switches to non-blocking when either is first used (loading the
// assertion module does): a write to the other could then fail, and a flood would pile up in memory. Blocking, both.

for (const stream of [process.stdout, process.stderr]) {
  const handle = stream._handle;
  if (handle && typeof handle.setBlocking === 'function') handle.setBlocking(true);
}
