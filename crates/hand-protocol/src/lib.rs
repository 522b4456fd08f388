//! What the server and the hand say to each other over the control socket.
