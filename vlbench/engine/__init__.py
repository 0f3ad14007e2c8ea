"""Where things meet: evaluate, finetune, predict."""
