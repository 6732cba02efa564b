"""What is served: endpoints, who may use them and how much, and the hand-over of streams."""
