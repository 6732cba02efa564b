"""The service's processes: forked, watched, replaced and ended.

The supervisor is one thread without an event loop. It opens the listeners, forks a hub process
and the workers, and from then on waits: for signals, for what its children say, for the next
restart that is due. It opens no store and touches no event.
"""
